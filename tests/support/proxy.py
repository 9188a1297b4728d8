"""A TCP link that can fail on purpose, and that counts what went through it.

    async with running_proxy("127.0.0.1", port) as proxy:
        client = connect(f"redis://127.0.0.1:{proxy.port}/0")
        proxy.stall(Way.DOWN)      # the server hears, the client waits
        proxy.flow()               # what was held back arrives, in order

Every fault acts on the links that live and on those to come, until `heal()`. Counters are the proof that a
fault happened. It runs in the test's event loop: a test that blocks the loop blocks the link.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from enum import Enum

CHUNK = 1 << 16
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close with a reset


class Way(Enum):
    UP = "client to server"
    DOWN = "server to client"


BOTH = (Way.UP, Way.DOWN)


class Lane:
    """One way of all links: its faults, and the bytes that came out of it or were lost in it."""

    def __init__(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        self.delay = 0.0  # seconds
        self.lossy = False
        self.left: int | None = None  # bytes until the cut
        self.passed = 0
        self.lost = 0

    def admit(self, data: bytes) -> tuple[bytes, bool]:
        """What of the data goes on, and whether the link is cut after it."""
        going = b"" if self.lossy else data if self.left is None else data[: self.left]
        self.passed += len(going)
        self.lost += len(data) - len(going)
        if self.left is None or self.lossy:
            return going, False
        cut = len(data) > self.left or not self.left
        self.left = None if cut else self.left - len(data)
        return going, cut


class Proxy:
    """`port` is where clients connect. `accepted` counts links; `cuts` those that were broken off."""

    def __init__(self, host: str, port: int) -> None:
        self.upstream = (host, port)
        self.port = 0
        self.accepted = 0
        self.cuts = 0
        self.refusing = False
        self._lanes = {way: Lane() for way in Way}
        self._links: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def passed(self, way: Way) -> int:
        """Bytes that went through."""
        return self._lanes[way].passed

    def lost(self, way: Way) -> int:
        """Bytes that were swallowed by `black_hole` or by a cut."""
        return self._lanes[way].lost

    @property
    def open_links(self) -> int:
        return len(self._links)

    def delay(self, seconds: float, *ways: Way) -> None:
        """Every byte arrives so much later; the order stays, and so does the bandwidth."""
        for lane in self._chosen(ways):
            lane.delay = seconds

    def stall(self, *ways: Way) -> None:
        """Nothing arrives, nothing is lost: `flow()` delivers it. Both ways if none is named."""
        for lane in self._chosen(ways):
            lane.flowing.clear()

    def flow(self, *ways: Way) -> None:
        for lane in self._chosen(ways):
            lane.flowing.set()

    def black_hole(self, *ways: Way) -> None:
        """Everything sent is lost, and nobody is told."""
        for lane in self._chosen(ways):
            lane.lossy = True

    def cut(self) -> None:
        """Breaks every link off, with a reset."""
        for writers in list(self._links):
            self._break(writers)

    def cut_after(self, count: int, way: Way) -> None:
        """Breaks a link off once `count` more bytes went that way. `cut_after(0, Way.DOWN)`: the next request
        is executed and its reply is lost. It happens once."""
        self._lanes[way].left = count

    def refuse(self) -> None:
        """New links are closed at once; living ones stay."""
        self.refusing = True

    def heal(self) -> None:
        """Ends every fault; links that were cut stay cut."""
        self.refusing = False
        for lane in self._lanes.values():
            lane.delay, lane.lossy, lane.left = 0.0, False, None
            lane.flowing.set()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serves one client until either side is done."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # `close` ended it: asyncio would log it as a fault of the server
        finally:
            writer.close()
            self._tasks.discard(task)

    async def close(self) -> None:
        self.cut()
        for task in (tasks := list(self._tasks)):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refusing:
            _reset(writer)
            return
        try:
            up_reader, up_writer = await asyncio.open_connection(*self.upstream)
        except OSError:
            _reset(writer)
            return
        link = (writer, up_writer)
        self._links.add(link)
        pumps = (
            self._pump(self._lanes[Way.UP], reader, up_writer, link),
            self._pump(self._lanes[Way.DOWN], up_reader, writer, link),
        )
        try:
            await asyncio.gather(*pumps)
        finally:
            self._links.discard(link)
            up_writer.close()

    async def _pump(
        self,
        lane: Lane,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        link: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(64)
        reading = asyncio.ensure_future(_read(lane, reader, queue))
        try:
            with suppress(ConnectionError, ssl.SSLError):
                await self._write(lane, writer, queue, link)
        finally:
            reading.cancel()

    async def _write(
        self,
        lane: Lane,
        writer: asyncio.StreamWriter,
        queue: asyncio.Queue[tuple[float, bytes]],
        link: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
    ) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, data = await queue.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            await lane.flowing.wait()
            if not data:
                if writer.can_write_eof():
                    writer.write_eof()
                else:
                    writer.close()
                return
            going, cut = lane.admit(data)
            writer.write(going)
            await writer.drain()
            if cut:
                self._break(link)
                return

    def _break(self, link: tuple[asyncio.StreamWriter, asyncio.StreamWriter]) -> None:
        if link in self._links:
            self._links.discard(link)
            self.cuts += 1
            for writer in link:
                _reset(writer)

    def _chosen(self, ways: Iterable[Way]) -> list[Lane]:
        return [self._lanes[way] for way in tuple(ways) or BOTH]


def _reset(writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _read(lane: Lane, reader: asyncio.StreamReader, queue: asyncio.Queue[tuple[float, bytes]]) -> None:
    loop = asyncio.get_running_loop()
    data = b"."
    while data:
        try:
            data = await reader.read(CHUNK)
        except (ConnectionError, ssl.SSLError):
            data = b""
        await queue.put((loop.time() + lane.delay, data))


@asynccontextmanager
async def running_proxy(
    host: str, port: int, *, tls: ssl.SSLContext | None = None, listen: int = 0
) -> AsyncIterator[Proxy]:
    """A link to `host:port` through a port of its own. With `tls` it speaks TLS to clients and plain text to
    the server. `listen` fixes the port (0: any)."""
    proxy = Proxy(host, port)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", listen, ssl=tls)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        await proxy.close()
        await server.wait_closed()
