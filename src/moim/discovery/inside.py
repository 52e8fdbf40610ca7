"""From a UDS server to a signed-in user: home cluster, servers, version, user, devices, service profile (D5).

The same steps serve the inside and the outside: ``Access`` decides how a server is reached.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from moim.discovery import profile, uds
from moim.discovery.actions import Response
from moim.discovery.outcome import Failure, Params, StepResult
from moim.discovery.run import Access, Flow, Got, Run, Stop, Url, failure_of, worst
from moim.discovery.signin import Place, sign_in
from moim.errors import ProtocolError

T = TypeVar("T")
Server = tuple[str, int]
# What to tell of a good answer: code, result, why, parameters.
Telling = tuple[str, StepResult, str, Params]

_CONFIG_HTTP, _CONFIG_HTTPS = 6970, 6972
_PORT_RANGE = 10_000


class Direct:
    """Servers of the inside as they are."""

    def get(self, run: Run, url: Url, *, auth: bool) -> Flow[Got]:
        """GETs with Basic credentials when ``auth``; those go over TLS only."""
        return (yield from run.get(url, (run.basic(),) if auth and url.scheme == "https" else ()))


class _NotAccepted(Stop):
    """The credentials were not accepted; other ones may be."""


def sign_in_at(run: Run, access: Access, servers: Sequence[Server], xmpp: Sequence[Place]) -> Flow[None]:
    """Everything from the UDS servers of a domain on. ``xmpp``: the servers to use instead of the profile's.

    Raises Stop with the failure to show.
    """
    known = yield from run.credentials()
    near = list(servers)
    if run.address is not None:
        found = yield from _find_user(run, access, near)
        run.user_id = found.user_id or run.address.local
        run.home_cluster = found.home or near[0][0]
        near = yield from _home_servers(run, access, found, near)
    run.server_version = yield from _first_good(
        run, access, near, f"{uds.BASE}/version", uds.read_version, lambda v: ("uds-version", "ok", "", {"version": v})
    )
    for server in near:
        run.service("uds", *server, "https", used=server == near[0])
    if not known:
        run.step("password", "no-password", "skipped", why="why-stop-without-password")
        return
    user = yield from _authenticated_user(run, access, near)
    run.display_name = user.display_name
    run.devices = yield from _first_good(
        run,
        access,
        near,
        uds.user_path(run.username, "/devices"),
        uds.read_devices,
        lambda devices: (
            "uds-devices", "ok", "why-profile", {"count": len(devices), "names": ", ".join(d.name for d in devices[:5])}
        ),
        auth=True,
    )  # fmt: skip
    run.configuration = yield from _configuration(run, access, user)
    yield from _authenticate(run, user, near[0], xmpp)


def _find_user(run: Run, access: Access, servers: list[Server]) -> Flow[uds.ClusterUser]:
    assert run.address is not None
    for kind, value in (("email", str(run.address)), ("username", run.address.local)):

        def tell(found: uds.ClusterUser, value: str = value) -> Telling:
            if not found.found:
                return "uds-user-none", "none", "", {"user": value}
            return "uds-user-found", "ok", "why-home-cluster", {"user": found.user_id or value, "home": found.home}

        found = yield from _first_good(
            run, access, servers, uds.cluster_user_path(kind, value), uds.read_cluster_user, tell
        )
        if found.found:
            return found
    host, port = servers[0]
    raise Stop(Failure.of("user-unknown", "credentials", address=str(run.address), where=f"{host}:{port}"))


def _home_servers(run: Run, access: Access, found: uds.ClusterUser, near: list[Server]) -> Flow[list[Server]]:
    """The UDS servers of the user's home cluster; those that answered so far when it cannot tell."""
    url = Url.parse(found.servers_uri)
    if url is None or url.scheme != "https":
        return near
    try:
        hosts = yield from _first_good(
            run,
            access,
            [(url.host, url.port)],
            url.path,
            uds.read_servers,
            lambda hosts: ("uds-servers", "ok", "", {"count": len(hosts), "servers": ", ".join(hosts[:5])}),
        )
    except Stop:
        run.step("uds", "uds-servers-unknown", "none")
        return near
    return [(host, url.port) for host in hosts]


def _authenticated_user(run: Run, access: Access, servers: list[Server]) -> Flow[uds.User]:
    while True:
        try:
            return (
                yield from _first_good(
                    run,
                    access,
                    servers,
                    uds.user_path(run.username),
                    uds.read_user,
                    lambda user: ("uds-user", "ok", "", {"name": user.display_name or user.user_id}),
                    auth=True,
                )
            )
        except _NotAccepted as wrong:
            if wrong.failure.code != "wrong-password" or not (yield from run.credentials(again=True)):
                raise Stop(wrong.failure) from None


def _configuration(run: Run, access: Access, user: uds.User) -> Flow[dict[str, str]]:
    """The user's service profile merged with the configuration file beside it."""
    for written in user.profile_uris:
        url = Url.parse(written)
        for candidate in _protected_first(url) if url is not None else ():
            got = yield from access.get(run, candidate, auth=False)
            settings = _read_file(run, got, candidate, profile.read_profile, "profile")
            if settings is None:
                continue
            run.service("config", candidate.host, candidate.port, candidate.scheme, used=True)
            file_url = Url(candidate.scheme, candidate.host, candidate.port, "/jabber-config.xml")
            got = yield from access.get(run, file_url, auth=False)
            file = _read_file(run, got, file_url, profile.read_config, "config")
            return profile.merge(settings, file or {})
    run.step("profile", "profile-none", "none", why="why-no-profile")
    return {}


def _read_file(
    run: Run, got: Got, url: Url, read: Callable[[bytes], dict[str, str]], what: str
) -> dict[str, str] | None:
    result = got.result
    asked = f"GET {url.path}"
    if isinstance(result, Response) and result.status == 200:
        try:
            settings = read(result.body)
        except ProtocolError as error:
            run.step(
                "profile",
                f"{what}-rubbish",
                "failed",
                what=asked,
                where=got.where,
                ms=got.ms,
                detail=error.message[:200],
            )
            return None
        code = f"{what}-read" if url.scheme == "https" else f"{what}-read-plain"
        run.step("profile", code, "ok", what=asked, where=got.where, ms=got.ms, count=len(settings))
        return settings
    detail = f"HTTP {result.status}" if isinstance(result, Response) else result.reason
    run.step("profile", f"{what}-missing", "none", what=asked, where=got.where, ms=got.ms, detail=detail)
    return None


def _protected_first(url: Url) -> tuple[Url, ...]:
    """Profiles are written with their plain HTTP address; the same server has them over HTTPS on a port near by."""
    if url.scheme == "http" and url.port % _PORT_RANGE == _CONFIG_HTTP:
        return Url("https", url.host, url.port - _CONFIG_HTTP + _CONFIG_HTTPS, url.path), url
    return (url,)


def _authenticate(run: Run, user: uds.User, server: Server, xmpp: Sequence[Place]) -> Flow[None]:
    run.authenticator = profile.product_type(run.configuration)
    if run.authenticator == "im-and-presence" and user.im_enabled is False:
        run.authenticator = "call-manager"
        run.step("decision", "authenticator-im-disabled", "ok", why="why-call-manager")
    else:
        run.step("decision", f"authenticator-{run.authenticator}", "ok", why=f"why-{run.authenticator}")
    if run.authenticator == "call-manager":
        run.signed_in = True
        run.product_mode = "phone"
        run.step("sign-in", "signed-in-uds", "ok", where=f"{server[0]}:{server[1]}", user=run.username)
    else:
        configured = [
            Place(place.host, place.port, direct=False) for place in profile.places(run.configuration, "IMandPresence")
        ]
        listed = [Place(host, 0, direct=False) for host in user.im_servers]
        if run.wants_sign_in:
            yield from sign_in(run, list(xmpp) or configured or listed)
        run.product_mode = "full-uc" if run.devices else "im-only"
    run.step("decision", f"mode-{run.product_mode}", "ok", count=len(run.devices))


def _first_good(
    run: Run,
    access: Access,
    servers: list[Server],
    path: str,
    read: Callable[[bytes], T],
    tell: Callable[[T], Telling],
    *,
    auth: bool = False,
) -> Flow[T]:
    """What the first server with a usable answer says; that server moves to the front of ``servers``.

    Raises _NotAccepted when a server does not accept the credentials, Stop when no server is of use.
    """
    failures: list[Failure] = []
    for index, (host, port) in enumerate(tuple(servers)):
        got = yield from access.get(run, Url("https", host, port, path), auth=auth)
        failure: Failure
        if not isinstance(got.result, Response):
            failure = failure_of(got.result, service="UDS", where=f"{host}:{port}")
        elif got.result.status == 200:
            try:
                value = read(got.result.body)
            except ProtocolError as error:
                failure = Failure.of(
                    "server-rubbish", "rubbish", service="UDS", where=f"{host}:{port}", detail=error.message[:300]
                )
            else:
                servers.insert(0, servers.pop(index))
                code, result, why, params = tell(value)
                run.step("uds", code, result, what=f"GET {path}", where=got.where, ms=got.ms, why=why, **params)
                return value
        elif got.result.status == 401 and not auth:
            failure = Failure.of("server-forbidden", "refused", service="UDS", where=f"{host}:{port}")
        else:
            failure = refusal(got.result, service="UDS", where=f"{host}:{port}")
        failures.append(failure)
        last = failure.kind == "credentials" or index + 1 == len(servers)
        why = "" if last else "why-next-server"
        run.failed("uds", failure, what=f"GET {path}", where=got.where, ms=got.ms, why=why)
        if failure.kind == "credentials":
            raise _NotAccepted(failure)
    raise Stop(worst(failures))


def refusal(response: Response, *, service: str, where: str) -> Failure:
    """The failure that an HTTP status other than 200 means."""
    status = response.status
    if status == 401:
        said = response.body[:4096].lower()
        if b"locked" in said:
            return Failure.of("account-locked", "credentials", service=service, where=where)
        if b"expired" in said:
            return Failure.of("password-expired", "credentials", service=service, where=where)
        return Failure.of("wrong-password", "credentials", service=service, where=where)
    if status == 429:
        wait = response.header("retry-after")[:10]
        seconds = int(wait) if wait.isascii() and wait.isdigit() else 60
        return Failure.of("too-many-attempts", "credentials", service=service, where=where, seconds=seconds)
    if status == 403:
        return Failure.of("server-forbidden", "refused", service=service, where=where)
    if status == 404:
        return Failure.of("server-not-there", "rubbish", service=service, where=where)
    if status >= 500 or status == 408:
        return Failure.of("server-busy", "network", service=service, where=where, status=status)
    return Failure.of("server-status", "rubbish", service=service, where=where, status=status)
