"""The server over HTTPS, on a thread of its own, with a kubeconfig for each of its users."""

import asyncio
import itertools
import json
import ssl
import threading
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import yaml
from aiohttp import web

from tests.chart import schemas
from tests.chart.apiserver import discovery, pods, protobuf, rbac, tables
from tests.chart.apiserver.alive import Alive
from tests.chart.apiserver.answers import Answers, permit, selected
from tests.chart.apiserver.asked import Asked, locate
from tests.chart.apiserver.failure import Failure, Object
from tests.chart.apiserver.kinds import Kinds
from tests.chart.apiserver.store import Change, Store
from tests.support.certificates import self_signed

STRICT_VERSION = "1.37"
HIDDEN = ("Status", "PartialObjectMetadata")


def _problems(item: Object) -> list[str]:
    if item.get("kind") in HIDDEN or "name" not in item.get("metadata", {}):
        return []
    return [each for each in schemas.problems(item, STRICT_VERSION) if "has no" not in each]


def _ids() -> Iterator[str]:
    for number in itertools.count(1):
        yield str(uuid.UUID(int=number))


class ApiServer:
    """`with ApiServer(folder) as api:` serves until the end of the block; `folder` gets certificates and kubeconfigs.

    `api.store` is the state, `api.alive` the controllers that a test may switch on, `api.scripts` what pods say.
    """

    def __init__(self, folder: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.kinds = Kinds()
        self.store = Store(self.kinds, now, _ids(), _problems)
        self.scripts = pods.Scripts()
        self.alive = Alive(self.store)
        self.requests: list[tuple[str, str]] = []  # method and path, as they came
        self._users = {"owner-token": rbac.OWNER}
        self.silent: set[str] = set()  # names of pods that the proxy gets no answer from
        self._hung_up = False
        self._folder, self._loop = folder, asyncio.new_event_loop()
        self._answers = Answers(self.store, self.scripts)
        self._thread = threading.Thread(target=self._loop.run_forever, name="apiserver")
        for name in ("default", "kube-system"):
            self.store.create("Namespace", {"metadata": {"name": name}, "status": {"phase": "Active"}})

    # --- life

    def __enter__(self) -> "ApiServer":
        self._certificate, private = self_signed(self._folder)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._certificate, private)
        self._thread.start()
        self._runner = web.AppRunner(
            self._application(), access_log=None, shutdown_timeout=0.1, handler_cancellation=True
        )
        self._run(self._runner.setup())
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        self._run(site.start())
        self.port = int(self._runner.addresses[0][1])
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def stop(self) -> None:
        """Answers no more; may be called twice."""
        self._run(self._end())

    def hang_up(self, on: bool) -> None:
        """While on, nobody gets an answer, as during a restart."""
        self._hung_up = on

    async def _end(self) -> None:
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _run(self, work: Coroutine[object, object, object]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=32 << 20)
        application.router.add_route("*", "/{path:.*}", self._handle)
        return application

    def kubeconfig(self, user: str = rbac.OWNER, namespace: str = "default") -> Path:
        """A file for `user`: the owner may do everything, anybody else what RBAC objects in the store say."""
        token = f"{user}-token"
        self._users[token] = user
        path = self._folder / f"kubeconfig-{user.replace(':', '-')}-{namespace}"
        context = {"cluster": "test", "user": user, "namespace": namespace}
        cluster = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self._certificate),
        }
        written = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "contexts": [{"name": "test", "context": context}],
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": token}}],
        }
        path.write_text(yaml.safe_dump(written))
        return path

    def forget(self, user: str) -> None:
        """The user's token is good no more."""
        self._users = {token: known for token, known in self._users.items() if known != user}

    # --- requests

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.method, request.path_qs))
        if self._hung_up and request.transport is not None:
            request.transport.abort()
            raise ConnectionResetError
        if "/proxy/" in request.path and any(f"/{name}:" in request.path for name in self.silent):
            await asyncio.sleep(3600)
        try:
            token = request.headers.get("Authorization", "").partition(" ")[2]
            if token not in self._users:
                raise Failure("Unauthorized", "Unauthorized")
            said = self._about(request)
            if said is not None:
                return web.json_response(said, content_type=_media(said))
            return await self._answer(request, self._users[token])
        except Failure as failure:
            return web.json_response(failure.status(), status=failure.code)

    def _about(self, request: web.Request) -> Object | None:
        path, accept = request.path.strip("/"), request.headers.get("Accept", "")
        whole = "as=APIGroupDiscoveryList" in accept
        if path in ("healthz", "livez", "readyz"):
            return {"status": "ok"}
        if path == "version":
            return discovery.VERSION
        if path == "openapi/v3":
            return discovery.openapi_index(self.kinds)
        if path.startswith("openapi/v3/"):
            return discovery.openapi_of(self.kinds, path.removeprefix("openapi/v3/"))
        if path == "api":
            core = {"kind": "APIVersions", "versions": ["v1"]}
            return discovery.aggregated(self.kinds, {"": ["v1"]}) if whole else core
        if path == "apis":
            groups = self.kinds.groups()
            return discovery.aggregated(self.kinds, groups) if whole else discovery.groups(self.kinds)
        return self._about_group(path)

    def _about_group(self, path: str) -> Object | None:
        steps = path.split("/")
        known = self.kinds.groups()
        if path == "api/v1":
            return discovery.classic(self.kinds, "", "v1")
        if len(steps) == 2 and steps[0] == "apis" and steps[1] in known:
            return discovery.group(self.kinds, steps[1])
        if len(steps) == 3 and steps[0] == "apis" and steps[2] in known.get(steps[1], ()):
            return discovery.classic(self.kinds, steps[1], steps[2])
        return None

    async def _answer(self, request: web.Request, user: str) -> web.StreamResponse:
        if request.path.endswith("/selfsubjectaccessreviews"):
            return self._review(await _body(request), user)
        asked = await self._asked(request, user)
        if request.method == "GET" and not asked.part and asked.query.get("watch") in ("true", "1"):
            return await self._watch(request, asked)
        if request.method not in ("GET", "POST", "PUT", "PATCH", "DELETE"):
            raise Failure("MethodNotAllowed", f"{request.method} is not supported")
        code, said = self._answers.of(request.method, asked)
        if isinstance(said, str):
            return web.Response(text=said, status=code)
        return web.json_response(said, status=code)

    async def _asked(self, request: web.Request, user: str) -> Asked:
        kind, namespace, name, part, rest = locate(self.kinds, request.path)
        agent = request.headers.get("User-Agent", "")
        accept = request.headers.get("Accept", "")
        query = {key: value for key, value in request.query.items()}
        body = await _body(request)
        return Asked(
            kind, namespace, name, part, rest, query, user, agent, request.content_type, accept, body
        )

    def _review(self, body: Object | list[Object], user: str) -> web.Response:
        assert isinstance(body, dict)
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked.get("resource", ""), asked.get("subresource", ""))))
        place = (asked.get("namespace", ""), asked.get("name", ""))
        act = rbac.Act(asked.get("verb", ""), asked.get("group", ""), resource, *place)
        verdict = {"allowed": rbac.allowed(self.store, user, act)}
        return web.json_response(body | {"status": verdict}, status=201)

    # --- watching

    async def _watch(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        permit(self.store, "GET", asked)
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        limit = float(asked.query.get("timeoutSeconds") or 3600)
        try:
            async with asyncio.timeout(limit), self._changes(asked) as events:
                async for event in events:
                    await response.write(json.dumps(self._told(asked, event)).encode() + b"\n")
        except (TimeoutError, ConnectionResetError):
            pass
        return response

    def _told(self, asked: Asked, event: Object) -> Object:
        if not asked.tabled or event["type"] == "BOOKMARK":
            return event
        row = tables.table(asked.kind, [event["object"]], str(self.store.version), self.store._now())
        return event | {"object": row}

    @asynccontextmanager
    async def _changes(self, asked: Asked) -> AsyncIterator[AsyncIterator[Object]]:
        queue: asyncio.Queue[Change] = asyncio.Queue()

        def listen(change: Change) -> None:
            self._loop.call_soon_threadsafe(queue.put_nowait, change)

        with self.store.lock:
            begin = self._first(asked)
            self.store.listeners.append(listen)
        try:
            yield self._events(asked, begin, queue)
        finally:
            self.store.listeners.remove(listen)

    def _first(self, asked: Asked) -> list[Object]:
        """What a watch starts with: the changes since its version, or all there is and a bookmark."""
        since = asked.query.get("resourceVersion", "")
        initial = asked.query.get("sendInitialEvents") == "true"
        if initial or since in ("", "0"):
            found = [{"type": "ADDED", "object": each} for each in self._answers.matching(asked)]
            return [*found, self._bookmark(asked)] if initial else found
        missed = [change for change in self.store.log if change.version > int(since)]
        return [event for change in missed for event in _events_of(asked, change)]

    def _bookmark(self, asked: Asked) -> Object:
        meta = {
            "resourceVersion": str(self.store.version),
            "annotations": {"k8s.io/initial-events-end": "true"},
        }
        kind = {"kind": asked.kind.kind, "apiVersion": asked.kind.api_version}
        return {"type": "BOOKMARK", "object": {**kind, "metadata": meta}}

    async def _events(
        self, asked: Asked, begin: list[Object], queue: "asyncio.Queue[Change]"
    ) -> AsyncIterator[Object]:
        for event in begin:
            yield event
        while True:
            for event in _events_of(asked, await queue.get()):
                yield event


def _events_of(asked: Asked, change: Change) -> list[Object]:
    """The change as one watcher sees it: an object that leaves its selection is deleted for it."""
    where = asked.namespace in ("", change.object["metadata"].get("namespace", ""))
    if change.kind is not asked.kind or not where:
        return []
    is_in = selected(asked, change.object)
    was_in = change.before is not None and selected(asked, change.before)
    if change.type == "DELETED" or not is_in:
        return [{"type": "DELETED", "object": change.object}] if is_in or was_in else []
    return [{"type": "MODIFIED" if was_in else "ADDED", "object": change.object}]


def _media(said: Object) -> str:
    if said.get("kind") == "APIGroupDiscoveryList":
        return "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    return "application/json"


async def _body(request: web.Request) -> Object | list[Object]:
    raw = await request.read()
    if not raw:
        return {}
    if raw.startswith(protobuf.MAGIC):
        return protobuf.decode(raw)
    try:
        found = json.loads(raw) if raw.lstrip()[:1] in b"{[" else yaml.safe_load(raw)
    except (ValueError, yaml.YAMLError) as error:
        raise Failure("BadRequest", f"the body cannot be read: {error}") from error
    return found  # type: ignore[no-any-return]
