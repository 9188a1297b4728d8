"""The proxy of the tests does the faults it is asked for: a fault that did not happen proves nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.support.gateway import until
from tests.support.proxy import Proxy, Way, running_proxy


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A link to a server that answers each byte with itself."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1024):
            writer.write(data)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    async with running_proxy("127.0.0.1", server.sockets[0].getsockname()[1]) as proxy:
        yield proxy
    server.close()
    await server.wait_closed()


async def test_bytes_pass_and_are_counted(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    assert (proxy.passed(Way.UP), proxy.passed(Way.DOWN), proxy.accepted) == (5, 5, 1)
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await until(lambda: proxy.open_links == 0)


async def test_a_stall_holds_one_way_and_loses_nothing(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.stall(Way.DOWN)
    writer.write(b"hello")
    await until(lambda: proxy.passed(Way.UP) == 5)
    assert proxy.passed(Way.DOWN) == 0
    proxy.flow()
    assert await reader.readexactly(5) == b"hello"
    writer.close()


async def test_a_reply_can_be_lost_after_its_request_arrived(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.cut_after(0, Way.DOWN)
    writer.write(b"hello")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert (proxy.passed(Way.UP), proxy.lost(Way.DOWN), proxy.cuts) == (5, 5, 1)
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"again")
    assert await reader.readexactly(5) == b"again"
    writer.close()


async def test_a_cut_comes_after_so_many_bytes(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.cut_after(7, Way.UP)
    writer.write(b"hello")
    assert await reader.readexactly(5) == b"hello"
    writer.write(b"hello")
    with pytest.raises(ConnectionResetError):
        while await reader.read(1024):
            pass
    assert (proxy.passed(Way.UP), proxy.lost(Way.UP)) == (7, 3)


async def test_a_black_hole_swallows(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.black_hole(Way.UP)
    writer.write(b"gone")
    await until(lambda: proxy.lost(Way.UP) == 4)
    proxy.heal()
    writer.write(b"here")
    assert await reader.readexactly(4) == b"here"
    writer.close()


async def test_a_delay_is_waited_out_once_for_all_that_is_under_way(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    proxy.delay(0.1, Way.UP)
    begin = loop.time()
    for _ in range(10):
        writer.write(b"x")
        await asyncio.sleep(0)
    assert await reader.readexactly(10) == b"x" * 10
    assert 0.1 <= loop.time() - begin < 10 * 0.1
    writer.close()


async def test_a_refusing_proxy_lets_living_links_be(proxy: Proxy) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(b"x")
    await reader.readexactly(1)
    proxy.refuse()
    late, other = await asyncio.open_connection("127.0.0.1", proxy.port)
    with pytest.raises(ConnectionResetError):
        await late.read()
    writer.write(b"y")
    assert await reader.readexactly(1) == b"y"
    writer.close()
    other.close()
