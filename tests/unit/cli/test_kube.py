"""What the API server answers, as the other commands get it."""

import json
from types import SimpleNamespace
from typing import Any

from services.cli.cluster.kube import Kube


class Client:
    """Answers each request with the next of `answers`."""

    def __init__(self, *answers: dict[str, Any]) -> None:
        self._answers = list(answers)

    def param_serialize(self, **request: Any) -> tuple[Any, ...]:
        return (request,)

    def call_api(self, *_: Any, **__: Any) -> Any:
        return SimpleNamespace(status=200, read=lambda: json.dumps(self._answers.pop(0)).encode())


def test_items_of_a_list_have_their_kind_though_the_server_leaves_it_to_the_list() -> None:
    page = {"apiVersion": "v1", "kind": "SecretList", "metadata": {"continue": "x"}}
    first = page | {"items": [{"metadata": {"name": "a"}}]}
    last = page | {"items": [{"kind": "Said", "metadata": {"name": "b"}}], "metadata": {}}
    found = Kube(Client(first, last), "n", "s").every("secrets")
    assert [(each["apiVersion"], each["kind"]) for each in found] == [("v1", "Secret"), ("v1", "Said")]
