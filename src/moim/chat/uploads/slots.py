"""The upload service as clients see it: a domain of its own that gives slots for files (XEP-0363 sections 3 to 5)."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
import unicodedata
from collections.abc import Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final
from urllib.parse import quote

from moim.chat.feature import Feature
from moim.chat.uploads.files import Files, NoRoom, Upload
from moim.errors import MoimError, ProtocolError
from moim.net.rate import RateLimit
from moim.proto.xmpp import Element, Jid, StanzaError, check_iq, error_reply, ns, result
from moim.proto.xmpp.dataform import Field, form
from moim.proto.xmpp.stanza import timestamp

PATH: Final = "/upload"
MAX_NAME = 200  # bytes; three times that in a URL
_TYPE = re.compile(r"[A-Za-z0-9!#$&^_.+-]{1,63}/[A-Za-z0-9!#$&^_.+-]{1,63}", re.ASCII)
_INFO = (ns.DISCO_INFO, ns.DISCO_ITEMS, ns.PING, ns.HTTP_UPLOAD, "urn:xmpp:http:upload:purpose:0#message")
# What paths, terminals and people stumble over; a per cent sign because proxies refuse its encoding in a path.
_NAME_FORBIDDEN = frozenset('/\\%?#:*|<>"\x7f')

Deliver = Callable[[Sequence[tuple[Jid, Element]]], None]

_log = logging.getLogger("moim.chat.uploads")


class Uploads:
    """The services of several domains. ``base`` gives the URL that clients reach the site's web origin by.

    ``people`` has whose people may upload at each service's domain, unless ``may`` says no to one of them; ``secret``
    signs what may be put; ``per_minute`` bounds the slots that one account may ask for; ``forms`` are what discovery
    of a domain's service says besides (XEP-0128). A component of the router, and a feature.
    """

    def __init__(
        self,
        people: Mapping[str, str],
        *,
        files: Files,
        base: Callable[[], str],
        secret: bytes,
        may: Callable[[str], bool],
        per_minute: Callable[[str], int],
        deliver: Deliver,
        forms: Callable[[str], Sequence[Element]] = lambda domain: (),
    ) -> None:
        self.hosts = people.keys()
        self.name = "File upload"
        self.files = files
        self._people = people
        self._base = base
        self._key = hmac.digest(secret, b"moim upload", "sha256")
        self._may = may
        self._per_minute = per_minute
        self._forms = forms
        self._rates: dict[int, RateLimit] = {}
        self._deliver = deliver
        self._tasks: set[asyncio.Task[None]] = set()
        self.feature = Feature(
            name="XEP-0363 HTTP file upload",
            on_start=files.start,
            on_stop=files.stop,
            on_account_removed=files.forget,
        )

    def token(self, upload: Upload) -> str:
        """What lets its holder fill the slot, once."""
        text = "\0".join((upload.id, upload.name, str(upload.size)))
        return hmac.new(self._key, text.encode(), hashlib.sha256).hexdigest()

    def send(self, stanza: Element) -> None:
        """Takes a stanza for the service; a refusal goes back as an error stanza."""
        try:
            sender, to = Jid.parse(stanza.get("from") or ""), Jid.parse(stanza.get("to") or "")
        except ProtocolError:
            return  # whoever let it in read both addresses before
        try:
            self._stanza(stanza, sender, to)
        except StanzaError as error:
            self._refuse(stanza, error)

    def _stanza(self, stanza: Element, sender: Jid, to: Jid) -> None:
        if stanza.name == "presence":
            return
        if stanza.name != "iq":
            raise StanzaError("service-unavailable")
        payload = check_iq(stanza)
        if payload is None:
            return
        if to.local or to.resource:
            raise StanzaError("item-not-found")
        key = (stanza.get("type"), payload.ns, payload.name)
        if key == ("get", ns.HTTP_UPLOAD, "request"):
            self._spawn(self._slot(stanza, sender, to, payload))
        elif key == ("get", ns.PING, "ping"):
            self._deliver([(sender, result(stanza))])
        elif payload.get("node") and payload.ns in (ns.DISCO_INFO, ns.DISCO_ITEMS):
            raise StanzaError("item-not-found", "there is no such node")
        elif key == ("get", ns.DISCO_INFO, "query"):
            self._deliver([(sender, result(stanza, self._info(sender, self._people[to.domain])))])
        elif key == ("get", ns.DISCO_ITEMS, "query"):
            self._deliver([(sender, result(stanza, Element("query", ns.DISCO_ITEMS)))])
        else:
            raise StanzaError("service-unavailable")

    def _info(self, sender: Jid, domain: str) -> Element:
        identity = Element("identity", ns.DISCO_INFO, {"category": "store", "type": "file", "name": self.name})
        features = [Element("feature", ns.DISCO_INFO, {"var": var}) for var in sorted(_INFO)]
        whose = str(sender.bare) if sender.domain == domain else domain
        limit = Field("max-file-size", values=(str(self.files.quotas(whose).file),))
        return Element(
            "query",
            ns.DISCO_INFO,
            {},
            (identity, *features, form("result", ns.HTTP_UPLOAD, [limit]), *self._forms(domain)),
        )

    # --- slots --------------------------------------------------------------------------------------------------

    async def _slot(self, iq: Element, sender: Jid, to: Jid, request: Element) -> None:
        try:
            upload = await self._reserve(sender, self._people[to.domain], request)
        except StanzaError as error:
            self._refuse(iq, error)
        except NoRoom as error:
            _log.warning("%s gets no slot: %s", sender.bare, error.message)
            again = None
            if error.retry_at is not None:
                stamp = timestamp(datetime.fromtimestamp(error.retry_at, UTC))
                again = Element("retry", ns.HTTP_UPLOAD, {"stamp": stamp})
            kind = "wait" if error.whose == "site" or again is not None else "cancel"
            self._refuse(iq, StanzaError("resource-constraint", error.message, kind=kind, application=again))
        except MoimError as error:
            _log.error("a slot for %s could not be made: %s", sender.bare, error)
            self._refuse(iq, StanzaError("internal-server-error", "the slot could not be made", kind="wait"))
        else:
            self._deliver([(sender, result(iq, self._links(upload)))])

    async def _reserve(self, sender: Jid, domain: str, request: Element) -> Upload:
        if sender.domain != domain or not sender.local:
            raise StanzaError("forbidden", f"only people of {domain} upload here")
        owner = str(sender.bare)
        if not self._may(owner):
            raise StanzaError("forbidden", "your account may not upload files")
        name, size, kind = _asked(request)
        limit = self.files.quotas(owner).file
        if size > limit:
            number = Element("max-file-size", ns.HTTP_UPLOAD, {}, (str(limit),))
            too_large = Element("file-too-large", ns.HTTP_UPLOAD, {}, (number,))
            raise StanzaError("not-acceptable", f"a file may have {limit} bytes", application=too_large)
        most = self._per_minute(owner)
        rate = self._rates.setdefault(most, RateLimit(per_s=most / 60, burst=most))
        wait = rate.wait(owner, time.monotonic())
        if wait > 0:
            stamp = timestamp(datetime.fromtimestamp(time.time() + wait, UTC))
            again = Element("retry", ns.HTTP_UPLOAD, {"stamp": stamp})
            raise StanzaError("resource-constraint", "too many slots at once", application=again)
        return await self.files.reserve(owner, name, size, kind)

    def _links(self, upload: Upload) -> Element:
        url = f"{self._base().rstrip('/')}{PATH}/{upload.id}/{quote(upload.name)}"
        put = Element("put", ns.HTTP_UPLOAD, {"url": f"{url}?token={self.token(upload)}"})
        return Element("slot", ns.HTTP_UPLOAD, {}, (put, Element("get", ns.HTTP_UPLOAD, {"url": url})))

    def _refuse(self, stanza: Element, error: StanzaError) -> None:
        reply = error_reply(stanza, error)
        if reply is not None:
            self._deliver([(Jid.parse(reply.get("to") or ""), reply)])

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="chat:upload-slot")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _asked(request: Element) -> tuple[str, int, str]:
    """Name, size and media type of a slot request. Raises StanzaError bad-request."""
    size = request.get("size") or ""
    if not (size.isascii() and size.isdigit() and len(size) <= 15) or int(size) == 0:
        raise StanzaError("bad-request", "the size of a file is a number of bytes, at least one")
    kind = (request.get("content-type") or "").partition(";")[0].strip().lower()
    if kind and not _TYPE.fullmatch(kind):
        raise StanzaError("bad-request", "the content type is not a media type")
    return file_name(request.get("filename") or ""), int(size), kind


def file_name(text: str) -> str:
    """A name that is safe in a path, in a URL and on a screen, as close to ``text`` as can be.

    Raises StanzaError bad-request when nothing of it can be a file's name.
    """
    plain = "".join(
        "_" if char in _NAME_FORBIDDEN or unicodedata.category(char) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        else char
        for char in unicodedata.normalize("NFC", text[:4 * MAX_NAME])
    ).strip(" .")  # fmt: skip
    stem, dot, ending = plain.rpartition(".")
    if not dot or len(ending.encode()) > 20:
        stem, ending = plain, ""
    ending = f".{ending}" if ending else ""
    while len((stem + ending).encode()) > MAX_NAME:
        stem = stem[:-1]
    if not stem.strip("_. "):
        raise StanzaError("bad-request", "the file needs a name")
    return stem + ending
