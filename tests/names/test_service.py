"""The name server on real sockets: dig and kdig agree; TCP bounds, pipelining, the rate limit, forwarding."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable

import dns.flags
import dns.message
import dns.rcode
import pytest

from moim.errors import ConfigError, PeerTimeout, Unavailable
from moim.names import Service
from moim.net.resolver import Resolver, exchange

Start = Callable[..., Awaitable[Service]]
MakeService = Callable[..., Service]


def where(service: Service) -> tuple[str, int]:
    status = service.health()[0]
    return status.address, status.port


async def run(program: str, service: Service, *arguments: str) -> str:
    address, port = where(service)
    process = await asyncio.create_subprocess_exec(
        program,
        f"@{address}",
        "-p",
        str(port),
        "+nocookie",
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    return output.decode()


def sections(output: str) -> tuple[str, dict[str, list[str]]]:
    """The status word, and the records of each section, of either program's output; order and spacing folded."""
    status = ""
    held: dict[str, list[str]] = {}
    section = ""
    for line in output.splitlines():
        if "status:" in line:
            status = line.split("status:")[1].split(";")[0].split(",")[0].strip()
        elif line.startswith(";; ") and "SECTION" in line:
            section = line.split()[1]
        elif not line or line.startswith(";;"):
            section = section if line else ""
        elif section and section not in ("QUESTION", "OPT"):
            held.setdefault(section, []).append(" ".join(line.lower().split()))
    return status, {name: sorted(lines) for name, lines in held.items()}


QUESTIONS = [
    ("_cisco-uds._tcp.example.test", "SRV"),
    ("_xmpps-client._tcp.example.test", "SRV"),
    ("_collab-edge._tls.example.test", "SRV"),
    ("example.test", "SOA"),
    ("example.test", "NS"),
    ("example.test", "A"),
    ("example.test", "AAAA"),
    ("inside.example.test", "A"),
    ("_tcp.example.test", "A"),
    ("nobody.example.test", "A"),
    ("example.org", "A"),
    ("long.example.test", "TXT"),
    ("EXAMPLE.test", "ANY"),
    ("www.example.test", "A"),
    ("x.apps.example.test", "A"),
]
RECORDS = [
    *({"name": "long", "type": "TXT", "value": f'"{i}" "{"a" * 200}"'} for i in range(20)),
    {"name": "www", "type": "CNAME", "value": "edge"},
    {"name": "*.apps", "type": "A", "value": "192.0.2.8"},
]


@pytest.mark.interop
@pytest.mark.parametrize("view", ["inside", "outside"])
async def test_dig_and_kdig_agree(start: Start, view: str) -> None:
    service = await start(view, records=RECORDS, serial=9)
    for name, kind in QUESTIONS:
        for extra in ([], ["+tcp"], ["+noedns"]):
            dig = sections(await run("dig", service, *extra, name, kind))
            kdig = sections(await run("kdig", service, *extra, name, kind))
            assert dig == kdig, (name, kind, extra)
            assert dig[0], (name, kind, extra)


@pytest.mark.interop
async def test_dig_sees_codes_flags_sizes_and_transfers(start: Start) -> None:
    service = await start("inside", records=RECORDS, allow_transfer=["127.0.0.1/32"])
    assert sections(await run("dig", service, "nobody.example.test"))[0] == "NXDOMAIN"
    assert sections(await run("dig", service, "example.org"))[0] == "REFUSED"
    assert sections(await run("dig", service, "+opcode=STATUS", "example.test"))[0] == "NOTIMP"
    assert sections(await run("dig", service, "+edns=7", "+noednsneg", "example.test"))[0] == "BADVERS"
    assert " tc " in (await run("dig", service, "+ignore", "long.example.test", "TXT")).replace(";", " ")
    whole = sections(await run("dig", service, "long.example.test", "TXT"))
    assert len(whole[1]["ANSWER"]) == 20
    for program in ("dig", "kdig"):
        transfer = await run(program, service, "example.test", "AXFR")
        assert transfer.count("SOA") == 2
        assert "_cisco-uds._tcp.example.test." in transfer
        refused = await run(program, await start("outside"), "example.test", "AXFR")
        assert "failed" in refused.lower() or "refused" in refused.lower()


def framed(message: bytes) -> bytes:
    return struct.pack("!H", len(message)) + message


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])


async def test_many_queries_in_one_segment_are_all_answered_in_order(start: Start) -> None:
    service = await start("inside")
    reader, writer = await asyncio.open_connection(*where(service))
    queries = [dns.message.make_query(f"n{i}.example.test", "A") for i in range(50)]
    writer.write(b"".join(framed(query.to_wire()) for query in queries))
    for query in queries:
        assert query.is_response(dns.message.from_wire(await read_framed(reader)))
    writer.close()


async def test_a_query_in_single_bytes_is_answered(start: Start) -> None:
    service = await start("inside")
    reader, writer = await asyncio.open_connection(*where(service))
    for byte in framed(dns.message.make_query("example.test", "SOA").to_wire()):
        writer.write(bytes([byte]))
        await writer.drain()
    assert dns.message.from_wire(await read_framed(reader)).rcode() == dns.rcode.NOERROR
    writer.close()


async def test_a_silent_connection_is_closed(start: Start) -> None:
    service = await start("inside", tcp_idle=0.05)
    reader, writer = await asyncio.open_connection(*where(service))
    writer.write(b"\x00")
    assert await reader.read() == b""
    writer.close()


async def test_a_connection_ends_after_its_share_of_queries(start: Start) -> None:
    service = await start("inside", tcp_queries=3)
    reader, writer = await asyncio.open_connection(*where(service))
    message = framed(dns.message.make_query("example.test", "SOA").to_wire())
    writer.write(message * 5)
    for _ in range(3):
        await read_framed(reader)
    with contextlib.suppress(ConnectionResetError):  # the queries beyond its share were never read
        assert await reader.read() == b""
    writer.close()


async def test_one_source_cannot_hold_every_connection(start: Start) -> None:
    service = await start("inside", tcp_per_source=2)
    address, port = where(service)
    first = [await asyncio.open_connection(address, port) for _ in range(2)]
    message = framed(dns.message.make_query("example.test", "SOA").to_wire())
    for reader, writer in first:
        writer.write(message)
        await read_framed(reader)
    reader, writer = await asyncio.open_connection(address, port)
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await reader.readexactly(1)
    writer.close()
    other = socket.socket()
    other.setblocking(False)
    other.bind(("127.0.0.77", 0))
    await asyncio.get_running_loop().sock_connect(other, (address, port))
    reader, writer = await asyncio.open_connection(sock=other)
    writer.write(message)
    await read_framed(reader)
    for _, each in [*first, (reader, writer)]:
        each.close()


async def test_beyond_the_rate_answers_are_truncated_or_dropped(start: Start) -> None:
    service = await start("inside", rate=1, rate_burst=2, rate_exempt=[])
    query = dns.message.make_query("_cisco-uds._tcp.example.test", "SRV").to_wire()
    replies = [await exchange(query, where(service), timeout=5) for _ in range(3)]
    assert [bool(reply[2] & 0x02) for reply in replies] == [False, False, True]
    assert len(replies[2]) <= len(query)
    with pytest.raises(PeerTimeout):
        await exchange(query, where(service), timeout=0.1)
    assert not (await exchange(query, where(service), timeout=5, stream=True))[2] & 0x02
    assert (await Resolver([where(service)]).services("_cisco-uds._tcp.example.test")).status == "ok"


async def test_rubbish_does_not_stop_the_service(start: Start) -> None:
    service = await start("inside")
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for junk in (b"", b"\x00", b"\xff" * 600, b"\x00" * 12, b"GET / HTTP/1.1\r\n\r\n"):
        sender.sendto(junk, where(service))
        reader, writer = await asyncio.open_connection(*where(service))
        writer.write(framed(junk) + junk)
        writer.write_eof()
        await reader.read()
        writer.close()
    sender.close()
    assert (await Resolver([where(service)]).addresses("inside.example.test")).addresses == ("127.0.0.1",)


async def test_foreign_names_go_to_the_forwarder_and_to_the_next_when_it_is_down(start: Start) -> None:
    address, port = where(await start("outside"))
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    nobody = f"127.0.0.1:{silent.getsockname()[1]}"
    service = await start("inside", domain="other.test", forwarders=[nobody, f"{address}:{port}"], forward_timeout=0.2)
    query = dns.message.make_query("edge.example.test", "A")
    for stream in (False, True):
        raw = await exchange(query.to_wire(), where(service), timeout=5, stream=stream)
        reply = dns.message.from_wire(raw)
        assert [str(rrset) for rrset in reply.answer] == ["edge.example.test. 60 IN A 127.0.0.2"]
    lonely = await start("inside", domain="other.test", forwarders=[nobody], forward_timeout=0.05)
    raw = await exchange(query.to_wire(), where(lonely), timeout=5)
    assert dns.message.from_wire(raw).rcode() == dns.rcode.SERVFAIL
    silent.close()


async def test_a_forwarder_that_is_this_server_is_refused(make_service: MakeService) -> None:
    with pytest.raises(ConfigError, match="itself"):
        await make_service("inside", port=None, forwarders=["127.0.0.1:10053"]).start()


async def test_a_port_that_is_taken_is_said_and_shown(start: Start, make_service: MakeService) -> None:
    first = await start("inside")
    second = make_service("inside", port=first.port)
    with pytest.raises(Unavailable, match="cannot listen"):
        await second.start()
    assert second.health()[0].state == "failed"
    status = first.health()[0]
    assert (status.name, status.node, status.transport, status.state) == ("dns-inside", "inside", "udp+tcp", "running")


async def test_a_site_without_its_own_name_server_says_so(make_service: MakeService) -> None:
    service = make_service("outside", enabled=False)
    await service.start()
    assert service.health()[0].state == "stopped"
    await service.stop()


async def test_every_domain_of_the_site_is_answered_for(start: Start) -> None:
    service = await start("inside", hosted=["two.test", "sub.example.test"])
    for name, target in (("example.test", "0 0"), ("two.test", "0 0"), ("sub.example.test", "0 0")):
        answer = await run("dig", service, "+short", f"_cisco-uds._tcp.{name}", "SRV")
        assert answer.strip() == f"{target} 18443 inside.example.test."
    assert "status: REFUSED" in await run("dig", service, "three.test", "A")


async def test_records_for_a_domain_that_is_not_there(make_service: MakeService) -> None:
    service = make_service("inside", records=[{"domain": "two.test", "name": "@", "type": "A", "value": "192.0.2.1"}])
    with pytest.raises(ConfigError, match=r"two\.test is not a domain of this site"):
        await service.start()
