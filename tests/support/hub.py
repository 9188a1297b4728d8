"""A hub on a loopback port: as much of Hugging Face's API as a fetch needs, and its failures on demand."""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "c0ffee" + 34 * "0"
LFS_FROM = 1000  # bytes


@dataclass
class FakeHub:
    """`files` of one repository. `drop_after` cuts each answer that short, as often as it has entries."""

    repository: str
    files: dict[str, bytes]
    drop_after: list[int] = field(default_factory=list)
    lies: dict[str, bytes] = field(default_factory=dict)  # sent in place of what the index says
    status: tuple[int, str] | None = None  # of every answer, with the hub's error code
    file_status: int | None = None
    knows_ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    def asked(self, name: str) -> list[str | None]:
        """The ranges that were asked for of this file."""
        return [wanted for path, wanted in self.requests if path.endswith(f"/{name}")]


@contextmanager
def serving(hub: FakeHub) -> Iterator[FakeHub]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, hub)

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        hub.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()


def answer(handler: BaseHTTPRequestHandler, hub: FakeHub) -> None:
    path = handler.path.partition("?")[0]
    hub.requests.append((path, handler.headers.get("Range")))
    if hub.status is not None:
        respond(handler, hub.status[0], b"", {"X-Error-Code": hub.status[1]})
    elif path.endswith("/revision/nowhere"):
        respond(handler, 404, b"", {"X-Error-Code": "RevisionNotFound"})
    elif re.fullmatch(f"/api/models/{hub.repository}(/revision/[^/]+)?", path):
        respond(handler, 200, json.dumps({"id": hub.repository, "sha": COMMIT}).encode(), {})
    elif path == f"/api/models/{hub.repository}/tree/{COMMIT}":
        respond(handler, 200, json.dumps([row(*item) for item in hub.files.items()]).encode(), {})
    elif match := re.fullmatch(f"/{hub.repository}/resolve/{COMMIT}/(.+)", path):
        send_file(handler, hub, match[1])
    else:
        respond(handler, 404, b"", {"X-Error-Code": "RepoNotFound"})


def row(name: str, content: bytes) -> dict[str, object]:
    git = hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()
    entry: dict[str, object] = {"type": "file", "path": name, "size": len(content), "oid": git}
    if len(content) < LFS_FROM:
        return entry
    lfs = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
    return entry | {"oid": "0" * 40, "lfs": lfs}


def send_file(handler: BaseHTTPRequestHandler, hub: FakeHub, name: str) -> None:
    if hub.file_status is not None:
        return respond(handler, hub.file_status, b"", {})
    content = hub.lies.get(name, hub.files[name])
    wanted = handler.headers.get("Range")
    if wanted and hub.knows_ranges:
        first = int(wanted.removeprefix("bytes=").rstrip("-"))
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        return respond(handler, 206, content[first:], {"Content-Range": span}, cut(hub, content[first:]))
    return respond(handler, 200, content, {}, cut(hub, content))


def cut(hub: FakeHub, content: bytes) -> int | None:
    return hub.drop_after.pop(0) if hub.drop_after and len(content) > hub.drop_after[0] else None


def respond(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes,
    headers: dict[str, str],
    sent: int | None = None,
) -> None:
    """`sent` bytes of the body, then the connection closes although more was promised."""
    handler.send_response(status)
    for name, value in (
        {"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers
    ).items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body[:sent])
    handler.close_connection = True
