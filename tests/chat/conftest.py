"""A chat service over the real plane and a real store, with people from a list; and clients that follow scripts."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings

import databases
from moim import chat, settings
from moim.bus import Bus
from moim.errors import Conflict, NotFound, UsageError
from moim.model import Address
from moim.proto.xmpp import ClientLogin, Element, Failed, Received, SignedIn, StartTlsNow, make_verifier, ns
from moim.proto.xmpp.scram import ScramHash
from moim.store import Store
from own_certificate import Files, write_certificate

hypothesis_settings.register_profile("patient", deadline=None)
hypothesis_settings.load_profile("patient")

DOMAIN = "chat.test"
WAIT = 20.0
_places = itertools.count(1)


def loopback() -> str:
    """An address of 127.0.0.0/8 that no other service of this test run uses."""
    process, number = os.getpid(), next(_places)
    return f"127.{200 + process % 54}.{process // 54 % 250}.{number % 250 + 1}"


@dataclass
class FakeUsers:
    """The directory as a dictionary: passwords by name, or by address for people of other domains than its own.

    Display names are the capitalised names.
    """

    passwords: dict[str, str]
    names: dict[str, str] = field(default_factory=dict)
    domain: str = DOMAIN
    broken: bool = False
    given: dict[str, str] = field(default_factory=dict)
    departments: dict[str, str] = field(default_factory=dict)

    def _key(self, address: Address | str) -> str:
        return str(address).removesuffix(f"@{self.domain}")

    async def scram(self, address: str, mechanism: ScramHash) -> Any:
        if self.broken:
            raise RuntimeError("the directory is on fire")
        password = self.passwords.get(self._key(address))
        salt = self._key(address).encode() * 4
        return None if password is None else make_verifier(mechanism, password, salt, 4096)

    def known_scram(self, address: str, mechanism: ScramHash) -> Any:
        return None

    def nobody(self, address: str) -> bool:
        return False

    def scram_hashes(self) -> Collection[ScramHash]:
        return ("SCRAM-SHA-256", "SCRAM-SHA-1")

    async def verify_password(self, address: str, password: str, *, source: str = "") -> bool:
        return self.passwords.get(self._key(address)) == password

    async def profile(self, address: str) -> Any:
        key = self._key(address)
        if key not in self.passwords:
            return None
        return SimpleNamespace(
            display_name=self.names.get(key, key.partition("@")[0].capitalize()),
            policy=self.given.get(key, ""),
            department=self.departments.get(key, ""),
        )

    async def policies(self, *, departments: bool) -> list[tuple[Address, str, str]]:
        named = {self._key(a): a for a in await self.addresses()}
        rows = [(a, self.given.get(key, ""), self.departments.get(key, "")) for key, a in named.items()]
        return [row for row in rows if row[1] or (departments and row[2])]

    async def update(self, address: Address | str, changes: Mapping[str, Any]) -> None:
        if self._key(address) not in self.passwords:
            raise NotFound(f"there is no {address}")
        if changes["policy"] == "large":
            raise UsageError("there is no policy 'large'")
        self.given[self._key(address)] = changes["policy"]

    async def addresses(self) -> list[Address]:
        return [Address(*key.split("@")) if "@" in key else Address(key, self.domain) for key in self.passwords]

    async def add(self, address: Address | str, password: str | None = None) -> None:
        if self._key(address) in self.passwords:
            raise Conflict(f"{address} exists already")
        self.passwords[self._key(address)] = password or ""

    async def set_password(self, address: Address | str, password: str) -> None:
        self.passwords[self._key(address)] = password

    async def remove(self, address: Address | str) -> None:
        if self.passwords.pop(self._key(address), None) is None:
            raise NotFound(f"there is no {address}")


class Client:
    """A signed-in client of our own: what it receives waits in ``inbox``."""

    def __init__(self, house: House, name: str, resource: str) -> None:
        self.house = house
        self.name = name
        self.resource = resource
        self.jid = ""
        self.mechanism = ""
        self.inbox: asyncio.Queue[Element | None] = asyncio.Queue()
        self.failure: Failed | None = None
        self._login: ClientLogin | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._task: asyncio.Task[None] | None = None
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._numbers = itertools.count(1)

    async def connect(self, *, password: str | None = None) -> Client:
        """Signs in over direct TLS. Raises AssertionError with the failure's words."""
        given = self.house.users.passwords.get(self.name, "none") if password is None else password
        address = self.name if "@" in self.name else f"{self.name}@{self.house.domain}"
        login = ClientLogin(address, given, tls="direct", resource=self.resource)
        reader, writer = await asyncio.open_connection(
            *self.house.place("xmpp-client-tls"), ssl=self.house.tls, server_hostname=address.rpartition("@")[2]
        )
        self._login, self._writer = login, writer
        login.start(0.0)
        self._flush()
        self._task = asyncio.create_task(self._read(reader))
        await asyncio.wait_for(asyncio.shield(self._ready), WAIT)
        return self

    async def _read(self, reader: asyncio.StreamReader) -> None:
        assert self._login is not None
        try:
            while data := await reader.read(65536):
                self._login.receive(data, 0.0)
                self._take()
        except (OSError, ssl.SSLError):
            pass
        self._login.closed(0.0)
        self._take()
        self.inbox.put_nowait(None)

    def _take(self) -> None:
        assert self._login is not None
        while (event := self._login.next_event()) is not None:
            if isinstance(event, Received):
                self.inbox.put_nowait(event.stanza)
            elif isinstance(event, SignedIn):
                self.jid, self.mechanism = str(event.jid), event.mechanism
                self._ready.set_result(None)
            elif isinstance(event, Failed):
                self.failure = event
                if not self._ready.done():
                    self._ready.set_exception(AssertionError(f"{event.condition}: {event.reason}"))
            else:
                assert not isinstance(event, StartTlsNow)
        self._flush()

    def _flush(self) -> None:
        assert self._login is not None
        assert self._writer is not None
        while (data := self._login.next_output()) is not None:
            self._writer.write(data)

    def send(self, stanza: Element | str) -> None:
        """Sends a stanza, given as an element or as XML in the client namespace."""
        assert self._login is not None
        self._login.send(parse(stanza) if isinstance(stanza, str) else stanza)
        self._flush()

    def send_raw(self, data: bytes) -> None:
        """Sends bytes."""
        assert self._writer is not None
        self._writer.write(data)

    async def receive(self, where: str = "") -> Element:
        """The next stanza. Fails when the stream ended instead; ``where`` is said when none comes."""
        try:
            stanza = await asyncio.wait_for(self.inbox.get(), WAIT)
        except TimeoutError:
            raise AssertionError(f"{where}\n{self.jid} received nothing") from None
        assert stanza is not None, f"the stream of {self.jid} ended: {self.failure}"
        return stanza

    async def request(self, payload: str, *, kind: str = "get", to: str | None = None) -> Element:
        """Sends an IQ and gives its answer, keeping other stanzas in the inbox."""
        identifier = f"q{next(self._numbers)}"
        target = "" if to is None else f" to='{to}'"
        self.send(f"<iq type='{kind}' id='{identifier}'{target}>{payload}</iq>")
        kept = []
        while (stanza := await self.receive()).get("id") != identifier or stanza.name != "iq":
            kept.append(stanza)
        for other in kept + [self.inbox.get_nowait() for _ in range(self.inbox.qsize())]:
            self.inbox.put_nowait(other)
        return stanza

    async def sync(self) -> None:
        """Returns when the server has worked off everything sent so far."""
        answer = await self.request(f"<ping xmlns='{ns.PING}'/>")
        assert answer.get("type") == "result"

    async def settle(self) -> None:
        """Like ``sync``, for a connection that may be over."""
        if self.failure is None and self._task is not None and not self._task.done():
            await self.sync()

    async def quiet(self) -> None:
        """Fails when anything waits, or comes before the server answers a ping."""
        await self.sync()
        assert self.inbox.empty(), self.inbox.get_nowait()

    async def ended(self) -> Failed | None:
        """Waits for the end of the stream, and says how it ended."""
        while await asyncio.wait_for(self.inbox.get(), WAIT) is not None:
            pass
        return self.failure

    def drop(self) -> None:
        """Cuts the connection without a word."""
        assert self._writer is not None
        self._writer.transport.abort()

    async def close(self) -> None:
        """Ends the stream politely."""
        if self._login is not None and self._writer is not None:
            self._login.finish()
            self._flush()
            if self._task is not None:
                await asyncio.wait([self._task], timeout=WAIT)
            self._writer.close()


def parse(text: str) -> Element:
    """One stanza written without its namespace."""
    (element,) = parse_all(text)
    return element


def parse_all(text: str) -> list[Element]:
    """Stanzas written without their namespace."""
    return Element.parse(f"<x xmlns='{ns.CLIENT}'>{text}</x>").elements()


def mismatch(expected: Element, got: Element) -> str:
    """Why ``got`` does not contain what ``expected`` lists; empty when it does. ``*`` is any value."""
    if (expected.ns, expected.name) != (got.ns, got.name):
        return f"<{got.name} xmlns='{got.ns}'> is not <{expected.name} xmlns='{expected.ns}'>"
    for key, value in expected.attrs.items():
        have = got.get(key)
        if (value == "" and have is not None) or (value not in ("", have) and not (value == "*" and have)):
            return f"attribute {key} of <{got.name}> is {have!r}, not {value!r}"
    if expected.text.strip() and expected.text.strip() not in ("*", got.text.strip()):
        return f"text of <{got.name}> is {got.text!r}"
    left = got.elements()
    for child in expected.elements():
        found = next((candidate for candidate in left if not mismatch(child, candidate)), None)
        if found is None:
            reasons = [mismatch(child, candidate) for candidate in left]
            return f"<{got.name}> has no such child: {child.to_xml()} ({'; '.join(reasons) or 'it has none'})"
        left.remove(found)
    return ""


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(inner)}" for key, inner in value.items()) + "}"
    return json.dumps(value)


class House:
    """A running chat service."""

    def __init__(
        self, root: Path, *, people: dict[str, str], domain: str = DOMAIN, bus: Bus | None = None,
        partner: House | None = None, hosted: Sequence[str] = (), engine: databases.Engine = databases.USUAL,
        **options: Any,
    ) -> None:  # fmt: skip
        self.root = root
        self.domain = domain
        self._partner = partner
        self.users: FakeUsers = partner.users if partner is not None else FakeUsers(dict(people), domain=domain)
        self.bus = bus or Bus()
        self.address = loopback()
        lines = [f"{key} = {_toml(value)}" for key, value in options.items()]
        head = f'domain = "{domain}"\nhosted_domains = {_toml(list(hosted))}\n'
        text = f'{head}[nodes]\ninside = {{ address = "{self.address}" }}\n[chat]\n' + "\n".join(lines)
        if bus is not None:
            other = partner.address if partner is not None else "127.255.255.1"
            own, theirs = ("inside2", "inside") if partner is not None else ("inside", "inside2")
            place = {own: self.address, theirs: other}
            nodes = f'[nodes]\ninside.address = "{place["inside"]}"\nothers.inside2.address = "{place["inside2"]}"\n'
            text = f"{head}{nodes}[chat]\n" + "\n".join(lines)
        root.mkdir(exist_ok=True)
        (root / "moim.toml").write_text(text + "\n")
        self.site = settings.load(root, {"chat": chat.Settings})
        if partner is not None:
            self.site = self.site.as_node("inside2")
        self.site.run.mkdir(exist_ok=True)
        self.files = write_certificate(root, *(name.encode("idna").decode() for name in (domain, *hosted)))
        self.tls = ssl.create_default_context(cafile=str(self.files.chain))
        self.store: Store
        if partner is not None:
            self.store = partner.store
        else:
            folders = sorted(Path(chat.__file__).parent.glob("**/migrations"))
            self.store = databases.opened(self.site.node_dir("inside") / "moim.db", folders, engine)
        self.service = self._service()
        self.clients: list[Client] = []

    def _service(self) -> chat.Service:
        return chat.Service(
            self.site,
            self.store,
            self.bus,
            users=self.users,
            credential=lambda _: self.files,
            web_base=lambda: "http://web.test",
        )

    def place(self, name: str) -> tuple[str, int]:
        """Address and port of a listener."""
        found = next(status for status in self.service.health() if status.name == name)
        return found.address, found.port

    def client(self, name: str, resource: str = "") -> Client:
        """A client that is not connected yet."""
        made = Client(self, name, resource)
        self.clients.append(made)
        return made

    async def online(self, name: str, resource: str = "", presence: str = "<presence/>") -> Client:
        """A client that asked for its roster and is available, with everything read that this brings."""
        client = await self.client(name, resource).connect()
        await client.request(f"<query xmlns='{ns.ROSTER}'/>")
        client.send(presence)
        await client.sync()
        while not client.inbox.empty():
            client.inbox.get_nowait()
        return client

    async def restart(self) -> None:
        """Stops the service and starts another one on the same store."""
        await self.service.stop()
        self.service = self._service()
        await self.service.start()

    async def stop(self) -> None:
        """Ends clients, service and store."""
        for client in self.clients:
            await client.close()
        await self.service.stop()
        if self._partner is None:
            databases.removed(self.store)


NewHouse = Callable[..., Awaitable[House]]
PEOPLE = {"alice": "wonder land", "bob": "비밀번호", "carol": "Ünïcode"}


@pytest.fixture
def house_class() -> type[House]:
    """For services that are made in another way."""
    return House


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> databases.Engine:
    """The kind of database that services have. Tests that are marked ``engines`` run on each."""
    return getattr(request, "param", databases.USUAL)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.definition.get_closest_marker("engines"):
        metafunc.parametrize("engine", ["sqlite", "postgresql"], indirect=True)


@pytest.fixture
async def new_house(tmp_path: Path, engine: databases.Engine) -> AsyncIterator[NewHouse]:
    """Makes running services; ``options`` are keys of ``[chat]``."""
    made: list[House] = []

    async def make(*, people: dict[str, str] | None = None, **options: Any) -> House:
        house = House(
            tmp_path / f"house{len(made)}", people=PEOPLE if people is None else people, engine=engine, **options
        )
        made.append(house)
        await house.service.start()
        return house

    yield make
    for house in made:
        await house.stop()


@pytest.fixture
async def house(new_house: NewHouse) -> House:
    """A running service with default settings, without default contacts."""
    return await new_house(default_contacts=False)


@pytest.fixture
def certificate() -> Callable[..., Files]:
    """Writes a certificate for names into a folder."""
    return write_certificate


@pytest.fixture
def matches() -> Callable[[Element, Element], str]:
    """How scripts compare what they expect with what came."""
    return mismatch


@pytest.fixture
def stanzas() -> Callable[[str], list[Element]]:
    """How scripts write stanzas."""
    return parse_all
