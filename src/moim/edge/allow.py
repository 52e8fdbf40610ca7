"""The two allow-lists as the inside makes them: rows that follow from the site, and rows that an administrator added.

Clients inside the proxy form (``/<base64>/…``) get one row per domain and allowed server on the edge, so that the edge
itself turns away every other place.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from moim.edge.keys import write_private
from moim.edge.rules import Rule, read_csv, write_csv
from moim.errors import MoimError, Unavailable, UsageError
from moim.proto import mra
from moim.settings import Site

_READ = ("GET", "HEAD")
_WRITE = ("GET", "POST", "PUT", "HEAD")
_FILES = ("GET", "HEAD", "PUT", "OPTIONS")
_WEB = ("GET", "POST", "PUT", "HEAD", "DELETE")
_log = logging.getLogger("moim.edge.allow")


def automatic_inside(site: Site) -> tuple[Rule, ...]:
    """What signed-in clients may reach inside without anybody adding a row: UDS and the configuration files."""
    host, bind = site.host("inside"), site.settings.ports.bind
    return (
        Rule(
            scheme="https",
            host=host,
            port=bind(8443),
            prefix="/cucm-uds/",
            methods=_WRITE,
            target="uds",
            description="User data services",
        ),
        Rule(
            scheme="http",
            host=host,
            port=bind(6970),
            prefix="/",
            methods=_READ,
            target="config-http",
            description="Configuration files",
        ),
        Rule(
            scheme="https",
            host=host,
            port=bind(6972),
            prefix="/",
            methods=_READ,
            target="config-https",
            description="Configuration files",
        ),
    )


def edge_rules(domains: Sequence[str], inside: Sequence[Rule]) -> tuple[Rule, ...]:
    """The rows of the edge: web app, XMPP over WebSocket, and sign-in for each domain and allowed inside server."""
    rows = [
        Rule(scheme="https", prefix="/", methods=_WEB, target="web", description="Web app"),
        Rule(scheme="wss", prefix="/", methods=("GET",), target="web", description="Web app"),
        Rule(scheme="https", prefix="/upload/", methods=_FILES, target="web", description="Files of chat"),
        Rule(
            scheme="https",
            match="exact",
            prefix="/http-bind",
            methods=("GET", "POST", "OPTIONS"),
            target="web",
            description="XMPP over HTTP (BOSH)",
        ),
        Rule(
            scheme="wss",
            match="exact",
            prefix="/xmpp-websocket",
            methods=("GET",),
            target="xmpp-websocket",
            description="XMPP over WebSocket",
        ),
    ]
    for domain in domains:
        rows.append(
            Rule(
                scheme="https",
                prefix=f"/{mra.encode_token(domain)}/",
                methods=_WRITE,
                target="mra",
                description=f"Edge configuration for {domain}",
            )
        )
        # Rows of one server that differ in path or method are one row here: the inside judges those.
        for scheme, host, port in dict.fromkeys((rule.scheme, rule.host, rule.port) for rule in inside):
            methods = {method for rule in inside if (rule.host, rule.port) == (host, port) for method in rule.methods}
            rows.append(
                Rule(
                    scheme="https",
                    prefix=mra.proxied_path(domain, scheme, host, port, "/"),
                    methods=tuple(sorted(methods)),
                    target="mra",
                    description=f"{scheme}://{host}:{port} for clients of {domain}"[:200],
                )
            )
    return tuple(rows)


class ManualRules:
    """The administrator's rows for inside servers, kept as CSV in ``path``.

    ``hosts`` are the names with an address; rows of ``automatic`` are there anyway and not kept a second time.
    """

    def __init__(self, path: Path, hosts: frozenset[str], automatic: Sequence[Rule] = ()) -> None:
        self._path = path
        self._hosts = hosts
        self._automatic = frozenset(automatic)
        self.rules: tuple[Rule, ...] = ()

    def load(self) -> None:
        """Reads the file; a file that cannot be used counts as empty and is reported."""
        try:
            self.rules = self._checked(read_csv(self._path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            self.rules = ()
        except (OSError, UnicodeDecodeError, MoimError) as error:
            _log.error("the allow-list %s is not used: %s", self._path, error)
            self.rules = ()

    def replace(self, text: str) -> tuple[Rule, ...]:
        """Takes the rows of a CSV text instead of the present ones. Raises UsageError with the row that is wrong."""
        rules = self._checked(read_csv(text))
        try:
            write_private(self._path, write_csv(rules).encode())
        except OSError as error:
            raise Unavailable(f"the allow-list cannot be written: {error}") from error
        self.rules = rules
        return rules

    def _checked(self, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        for rule in rules:
            if rule.scheme == "wss":
                raise UsageError(f"{rule.url}: clients reach servers inside over http and https only")
            if rule.host not in self._hosts or not rule.port:
                raise UsageError(
                    f"{rule.url}: there is no configured address for this host",
                    hint=f"hosts with an address: {', '.join(sorted(self._hosts))}",
                )
        return tuple(rule for rule in rules if rule not in self._automatic)
