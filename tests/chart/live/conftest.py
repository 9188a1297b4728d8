"""One API server a test, with everything in it alive."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.apiserver.server import ApiServer
from tests.chart.live.fleet import NAMESPACE, Fleet
from tests.chart.live.shell import Shell


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiServer]:
    (folder := tmp_path / "apiserver").mkdir()
    with ApiServer(folder) as server:
        server.alive.begin()
        yield server


@pytest.fixture
def shell(api: ApiServer, tmp_path: Path) -> Shell:
    return Shell(api.kubeconfig(), tmp_path)


@pytest.fixture
def fleet(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    """A release, and a shell of its owner."""
    found = Fleet(api)
    found.install()
    monkeypatch.setenv("KUBECONFIG", str(api.kubeconfig(namespace=NAMESPACE)))
    return found
