"""Two whole sites on loopback addresses that know each other by their own name servers."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

from moim import app
from moim.settings import load_frame
from running_site import RunningSite, loopback_pair


def make_site(
    root: Path, domain: str, toml: str = "", *, demo: bool = True, hosted: Sequence[str] = ()
) -> tuple[RunningSite, str]:
    """A site that is not started yet, with ``toml`` added to its settings; and its inside address."""
    inside, edge = loopback_pair()
    app.create_site(root, domain=domain, demo=demo, ports="dev", inside=inside, edge_address=edge)
    text = (root / "moim.toml").read_text()
    (root / "moim.toml").write_text(f"hosted_domains = {list(hosted)}\n{text}\n{toml}\n")
    return RunningSite(root), inside


def federation_toml(*, resolvers: str, trusted: Path | None = None, more: str = "") -> str:
    """The section that lets a site federate on this machine."""
    lines = ["[federation]", f'resolvers = ["{resolvers}"]', 'target_networks = ["127.0.0.0/8"]', "posh = false"]
    if trusted is not None:
        lines.append(f'trusted = ["{trusted}"]')
    return "\n".join([*lines, more])


class Startable(Protocol):
    """A site, or another server."""

    def start(self) -> None: ...


def start_all(*sites: Startable) -> None:
    """Starts sites and servers side by side."""
    with ThreadPoolExecutor(len(sites)) as pool:
        list(pool.map(lambda site: site.start(), sites))


def two_sites(folder: Path, *, trusting: bool, a_more: str = "", b_more: str = "") -> tuple[RunningSite, RunningSite]:
    """a.test and b.test, started; with ``trusting`` each takes the other's authority for good.

    ``a`` finds ``b`` as the outside does: by the outside view, at the edge, through the tunnel;
    ``b`` finds ``a`` inside.
    """
    sites = []
    for domain in ("a.test", "b.test"):
        sites.append(make_site(folder / domain, domain))
    for (site, _), (other, _), node, more in zip(
        sites, reversed(sites), ("edge", "inside"), (a_more, b_more), strict=True
    ):
        trusted = other.ca if trusting else None
        nodes = load_frame(other.root).settings.nodes
        address = nodes.edge.address if node == "edge" else nodes.inside.address
        with (site.root / "moim.toml").open("a") as file:
            file.write(federation_toml(resolvers=f"{address}:10053", trusted=trusted, more=more) + "\n")
    start_all(*(site for site, _ in sites))
    return sites[0][0], sites[1][0]
