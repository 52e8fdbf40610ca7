"""TCP through the edge: the PROXY header, both directions, half-close, limits."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from moim.edge import Settings, Target
from moim.edge.settings import LimitSettings
from moim.net.proxy_header import proxy_header

from .conftest import House

SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def test_header_for_ipv4() -> None:
    header = proxy_header(("192.0.2.1", 40000), ("127.0.0.2", 15222))
    assert header == SIGNATURE + bytes.fromhex("21 11 000c c0000201 7f000002 9c40 3b76")


def test_header_for_ipv6() -> None:
    header = proxy_header(("2001:db8::1%eth0", 1), ("127.0.0.2", 2))
    assert header[12:16] == bytes.fromhex("21 21 0024")
    assert header[16:32] == ipaddress.IPv6Address("2001:db8::1").packed
    assert header[32:48] == ipaddress.IPv6Address("::ffff:127.0.0.2").packed
    assert header[48:] == b"\0\1\0\2"


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 65535), st.integers(0, 65535))
def test_header_length_is_what_it_says(source: object, destination: object, first: int, second: int) -> None:
    header = proxy_header((str(source), first), (str(destination), second))
    assert header.startswith(SIGNATURE + b"\x21")
    assert int.from_bytes(header[14:16], "big") == len(header) - 16
    assert header.endswith(first.to_bytes(2, "big") + second.to_bytes(2, "big"))


async def _connect(house: House) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection(house.edge_address, house.site.settings.ports.bind(5222))


async def _ended(reader: asyncio.StreamReader) -> bool:
    """Whether the edge closes without a byte, by FIN or by RST."""
    try:
        return await reader.read() == b""
    except OSError:
        return True


async def test_bytes_and_half_close_pass_both_ways(house: House, tmp_path: Path) -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readexactly(28))
        writer.write(b"greeting")
        seen.append(await reader.read())  # until the client's half-close
        writer.write(b" and farewell")
        writer.close()

    path = tmp_path / "xmpp"
    async with await asyncio.start_unix_server(serve, str(path)):
        house.targets["xmpp"] = Target(path=path, announce=True)
        await house.start()
        reader, writer = await _connect(house)
        assert await reader.readexactly(8) == b"greeting"
        writer.write(b"<stream/>")
        writer.write_eof()
        assert await reader.read() == b" and farewell"
        name = writer.get_extra_info("sockname")
        writer.close()
    assert seen == [proxy_header(name[:2]), b"<stream/>"]
    assert house.edge._tcp.counters["edge-xmpp.bytes_in"] == 9


async def test_a_target_that_refuses_closes_at_once(house: House) -> None:
    await house.start()
    reader, writer = await _connect(house)
    assert await _ended(reader)
    writer.close()
    assert any("xmpp" in refusal.reason for refusal in house.edge._refusals.list())


async def test_idle_connections_end(make_house: Callable[..., House], tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    house = make_house(Settings(limits=LimitSettings(stream_idle_s=0.2)))
    path = tmp_path / "xmpp"
    async with await asyncio.start_unix_server(serve, str(path)):
        house.targets["xmpp"] = Target(path=path)
        await house.start()
        reader, writer = await _connect(house)
        assert await _ended(reader)
        writer.close()
    await house.stop()


async def test_connections_have_a_limit(make_house: Callable[..., House], tmp_path: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(28)
        writer.write(b"x")
        await reader.read()
        writer.close()

    house = make_house(Settings(limits=LimitSettings(connections=2)))
    path = tmp_path / "xmpp"
    async with await asyncio.start_unix_server(serve, str(path)):
        house.targets["xmpp"] = Target(path=path, announce=True)
        await house.start()
        held = [await _connect(house) for _ in range(2)]
        for reader, _ in held:
            assert await reader.readexactly(1) == b"x"
        reader, writer = await _connect(house)
        assert await _ended(reader)
        for _, one in [*held, (reader, writer)]:
            one.close()
    await house.stop()
