"""Peers for the tests of TURN: coturn's client and echo peer as programs, and a client for what those cannot ask."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

COOKIE = 0x2112A442
BINDING, ALLOCATE, REFRESH, PERMISSION, CHANNEL = 1, 3, 4, 8, 9
ERROR_CODE, CHANNEL_NUMBER, LIFETIME, PEER, DATA = 0x09, 0x0C, 0x0D, 0x12, 0x13
REALM_, NONCE, RELAYED, EVEN_PORT, TRANSPORT, DONT_FRAGMENT, TOKEN = 0x14, 0x15, 0x16, 0x18, 0x19, 0x1A, 0x22
UDP = (TRANSPORT, b"\x11\0\0\0")
MAPPED = 0x20


def keys(user: str, realm: str, password: str) -> tuple[bytes, bytes]:
    """Long-term keys as the server takes them."""
    text = f"{user}:{realm}:{password}".encode()
    return hashlib.md5(text).digest(), hashlib.sha256(text).digest()


def program(name: str) -> str:
    """The path of one of coturn's utilities."""
    return shutil.which(name) or f"/usr/bin/{name}"


@contextmanager
def echo_peer(address: str = "127.0.0.1") -> Iterator[int]:
    """Runs coturn's UDP echo peer; gives its port once it answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
    process = subprocess.Popen(
        [program("turnutils_peer"), "-L", address, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.settimeout(0.1)
            for _ in range(100):
                probe.sendto(b"ready?", (address, port))
                try:
                    probe.recv(64)
                except OSError:
                    continue
                break
            else:
                raise RuntimeError("the echo peer does not answer")
        yield port
    finally:
        process.terminate()
        process.wait(10)


@dataclass(frozen=True)
class Outcome:
    """What coturn's client reported."""

    code: int
    sent: int
    received: int
    output: str


def uclient(server: tuple[str, int], peer: tuple[str, int], *flags: str) -> Outcome:
    """Runs coturn's client to its end."""
    done = subprocess.run(
        [program("turnutils_uclient"), *flags, "-e", peer[0], "-r", str(peer[1]), "-p", str(server[1]), server[0]],
        capture_output=True,
        text=True,
        timeout=60,
    )
    output = done.stdout + done.stderr
    counted = re.findall(r"tot_send_msgs=(\d+), tot_recv_msgs=(\d+)", output)
    sent, received = (int(count) for count in counted[-1]) if counted else (0, 0)
    return Outcome(done.returncode, sent, received, output)


@dataclass(frozen=True)
class Answer:
    """One STUN message, attributes by type (the last of each)."""

    type: int
    attributes: dict[int, bytes]

    @property
    def code(self) -> int:
        """The error code; 0 for success."""
        value = self.attributes.get(ERROR_CODE)
        return value[2] * 100 + value[3] if value else 0

    def address(self, kind: int) -> tuple[str, int]:
        """A masked IPv4 address."""
        value = self.attributes[kind]
        port = struct.unpack(">H", value[2:4])[0] ^ COOKIE >> 16
        return socket.inet_ntoa(struct.pack(">I", struct.unpack(">I", value[4:8])[0] ^ COOKIE)), port


def attribute(kind: int, value: bytes) -> bytes:
    """Header, value, padding."""
    return struct.pack(">HH", kind, len(value)) + value + b"\0" * (-len(value) % 4)


def masked(address: tuple[str, int]) -> bytes:
    """An IPv4 address as XOR-…-ADDRESS has it."""
    ip = struct.unpack(">I", socket.inet_aton(address[0]))[0]
    return struct.pack(">BBHI", 0, 1, address[1] ^ COOKIE >> 16, ip ^ COOKIE)


def parse(data: bytes) -> Answer:
    """Reads a message that this test's own server sent."""
    attributes, at = {}, 20
    while at < len(data):
        kind, length = struct.unpack_from(">HH", data, at)
        attributes[kind] = data[at + 4 : at + 4 + length]
        at += 4 + length + -length % 4
    return Answer(struct.unpack(">H", data[:2])[0], attributes)


class TurnClient:
    """A client on a socket of its own, with a user name and password."""

    def __init__(self, server: tuple[str, int], user: str, password: str, realm: str = "moim.test") -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.connect(server)
        self.socket.settimeout(10)
        self.address: tuple[str, int] = self.socket.getsockname()
        self.user, self.realm, self.nonce = user, realm, b""
        self.key = keys(user, realm, password)[0]

    def __enter__(self) -> TurnClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def build(self, method: int, *attributes: tuple[int, bytes]) -> bytes:
        """A request; signed once there is a nonce."""
        body = b"".join(attribute(*one) for one in attributes)
        identity = os.urandom(12)
        if not self.nonce:
            return struct.pack(">HHI", method, len(body), COOKIE) + identity + body
        for kind, value in ((0x06, self.user.encode()), (REALM_, self.realm.encode()), (NONCE, self.nonce)):
            body += attribute(kind, value)
        message = struct.pack(">HHI", method, len(body) + 24, COOKIE) + identity + body
        return message + attribute(0x08, hmac.digest(self.key, message, "sha1"))

    def ask(self, method: int, *attributes: tuple[int, bytes]) -> Answer:
        """Sends a request and takes the answer; a challenge is remembered, not answered."""
        self.socket.send(self.build(method, *attributes))
        answer = parse(self.socket.recv(65535))
        self.nonce = answer.attributes.get(NONCE, self.nonce)
        return answer

    def allocate(self, *attributes: tuple[int, bytes]) -> tuple[str, int]:
        """Greets if need be, allocates, gives the relay's address."""
        if not self.nonce:
            assert self.ask(ALLOCATE, UDP).code == 401
        answer = self.ask(ALLOCATE, UDP, *attributes)
        assert answer.code == 0, answer
        return answer.address(RELAYED)

    def permit(self, *peers: tuple[str, int]) -> int:
        """CreatePermission; the error code or 0."""
        return self.ask(PERMISSION, *((PEER, masked(peer)) for peer in peers)).code

    def bind(self, number: int, peer: tuple[str, int]) -> int:
        """ChannelBind; the error code or 0."""
        return self.ask(CHANNEL, (CHANNEL_NUMBER, struct.pack(">HH", number, 0)), (PEER, masked(peer))).code

    def send(self, peer: tuple[str, int], data: bytes, *flags: tuple[int, bytes]) -> None:
        """A Send indication."""
        body = b"".join(attribute(*one) for one in ((PEER, masked(peer)), (DATA, data), *flags))
        self.socket.send(struct.pack(">HHI", 0x0016, len(body), COOKIE) + os.urandom(12) + body)
