"""A request, taken apart: which kind, which object, which part of it, and how."""

from dataclasses import dataclass

from tests.chart.apiserver.failure import Failure, Object
from tests.chart.apiserver.kinds import Kind, Kinds


@dataclass(frozen=True, slots=True)
class Asked:
    kind: Kind
    namespace: str
    name: str  # empty for a collection
    part: str  # subresource, such as status, or empty
    rest: str  # what follows the subresource, as a proxy has it
    query: dict[str, str]
    user: str
    agent: str
    media: str  # of the body
    accept: str
    body: Object | list[Object]

    @property
    def dry(self) -> bool:
        return "dryRun" in self.query or bool(isinstance(self.body, dict) and self.body.get("dryRun"))

    @property
    def manager(self) -> str:
        return self.query.get("fieldManager") or self.agent.partition("/")[0] or "unknown"

    @property
    def force(self) -> bool:
        return self.query.get("force") == "true"

    @property
    def judged(self) -> str:
        return self.query.get("fieldValidation") or "Warn"

    @property
    def tabled(self) -> bool:
        return "as=Table" in self.accept

    @property
    def item(self) -> Object:
        if not isinstance(self.body, dict) or not self.body:
            raise Failure("BadRequest", "the body is not an object", self.kind, self.name)
        return self.body


def locate(kinds: Kinds, path: str) -> tuple[Kind, str, str, str, str]:
    """Kind, namespace, name, part and rest of a path. Raises Failure."""
    steps = [step for step in path.split("/") if step]
    if steps[:1] == ["api"]:
        group, version, steps = "", *steps[1:2], steps[2:]
    elif steps[:1] == ["apis"] and len(steps) > 3:
        group, version, steps = steps[1], steps[2], steps[3:]
    else:
        raise Failure("NotFound", "the server could not find the requested resource")
    namespace = ""
    if steps[:1] == ["namespaces"] and len(steps) > 2 and steps[2] not in ("status", "finalize"):
        namespace, steps = steps[1], steps[2:]
    kind = kinds.by_path(group, version, steps[0]) if steps else None
    if kind is None:
        raise Failure("NotFound", "the server could not find the requested resource")
    name, part, *rest = [*steps[1:3], "", ""][:2] + steps[3:]
    return kind, namespace, name, part, "/".join(rest)
