"""A name server for tests: the records it is given, over UDP, on a loopback address of its own and any port."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence

import dns.exception
import dns.flags
import dns.message
import dns.rcode
import dns.rrset


class TinyDns:
    """Answers from a list of zone-file lines (``name. 60 IN SRV 0 0 5269 host.``), which may change while it runs."""

    def __init__(self, records: Sequence[str] = (), *, address: str = "127.0.0.1", authentic: bool = False) -> None:
        self.records = list(records)
        self.authentic = authentic
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self.address, self.port = self._socket.getsockname()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def place(self) -> str:
        """``address:port``."""
        return f"{self.address}:{self.port}"

    def add(self, *records: str) -> None:
        self.records.extend(records)

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                data, sender = self._socket.recvfrom(4096)
            except OSError:
                return
            try:
                query = dns.message.from_wire(data)
            except dns.exception.DNSException:
                continue
            self._socket.sendto(self._answer(query), sender)

    def _answer(self, query: dns.message.Message) -> bytes:
        reply = dns.message.make_response(query)
        reply.flags |= dns.flags.RA | (dns.flags.AD if self.authentic else 0)
        question = query.question[0]
        known = False
        for line in self.records:
            owner, ttl, kind, name, value = line.split(None, 4)
            found = dns.rrset.from_text(owner, int(ttl), kind, name, value)
            if found.name == question.name:
                known = True
                if found.rdtype == question.rdtype:
                    for record in found:
                        reply.find_rrset(reply.answer, found.name, found.rdclass, found.rdtype, create=True).add(
                            record, found.ttl
                        )
        if not known:
            reply.set_rcode(dns.rcode.NXDOMAIN)
        return reply.to_wire()
