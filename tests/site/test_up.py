"""``moim up`` as a newcomer meets it: what it makes, what it prints, how it stops, what it refuses."""

from __future__ import annotations

import json
import os
import re
import stat
import subprocess
from pathlib import Path

import httpx

from running_site import MOIM, RunningSite, loopback_pair

SERVICES = {
    "web", "uds", "xmpp-client", "xmpp-client-tls", "xmpp-websocket", "edge-https", "edge-xmpp", "turn",
    "dns-inside", "dns-outside", "tunnel", "admin",
}  # fmt: skip


def test_prints_where_everything_is(site: RunningSite) -> None:
    text = "".join(site.output)
    web = site.status()["web"]
    assert web in text
    for address, password in site.passwords.items():
        assert address in text
        assert password in text
    for service in ("xmpp-client", "turn", "dns-inside", "dns-outside"):
        address, port = site.place(service)
        assert f"{address}:{port}" in text
    assert str(site.ca) in text


def test_status_lists_every_service(site: RunningSite) -> None:
    document = site.status()
    assert document["ready"] is True
    assert document["domain"] == "moim.test"
    names = {s["name"] for s in document["services"]}
    assert names >= SERVICES
    assert all(s["state"] == "running" for s in document["services"])
    assert {(n["name"], n["state"]) for n in document["nodes"]} == {("inside", "running"), ("edge", "running")}
    assert httpx.get(document["web"]).status_code == 200
    table = site.moim("status").stdout
    assert all(name in table for name in SERVICES)


def test_secrets_are_private(site: RunningSite) -> None:
    public = {"ca.pem", "chain.pem"}
    for path in site.root.rglob("*"):
        mode = path.lstat().st_mode
        if stat.S_ISREG(mode) and path.name not in public and path.suffix != ".pub":
            assert mode & 0o077 == 0, f"{path} has mode {mode & 0o777:o}"
    assert stat.S_IMODE((site.root / "demo-users.json").stat().st_mode) == 0o600


def test_the_edge_holds_no_user_data(site: RunningSite) -> None:
    files = [p for p in (site.root / "edge").rglob("*") if p.is_file()]
    text = b"".join(p.read_bytes() for p in files)
    assert b"alice" not in text
    assert not [p for p in files if p.suffix in {".db", ".sqlite"}]


def test_a_second_up_on_the_same_site_is_refused(site: RunningSite) -> None:
    done = subprocess.run([MOIM, "up", "--site", site.root], capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "runs already" in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_options_that_contradict_the_site_are_refused(site: RunningSite) -> None:
    done = subprocess.run(
        [MOIM, "up", "--site", site.root, "--domain", "other.test"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 2
    assert "contradicts" in done.stderr


def test_stops_cleanly_and_starts_again(own_site: RunningSite) -> None:
    before = own_site.passwords
    nodes = [n["pid"] for n in own_site.status()["nodes"]]
    own_site.stop()
    assert own_site.process is not None
    assert own_site.process.returncode == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in nodes)
    assert own_site.moim("status", "--json", check=False).returncode == 1
    own_site.start()
    assert own_site.passwords == before
    assert "Traceback" not in own_site.logs()


def test_a_port_in_use_names_the_port(tmp_path: Path, site: RunningSite) -> None:
    inside = site.place("xmpp-client")[0]
    process = subprocess.Popen(
        [MOIM, "up", "--site", tmp_path / "x", "--inside", inside, "--edge", loopback_pair()[1]],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        said = next(line for line in process.stdout if "cannot listen" in line)
    finally:
        process.terminate()
        process.wait(20)
    assert re.search(rf"cannot listen .*{re.escape(inside)}:\d+", said)


def test_without_a_site_commands_say_what_to_do(tmp_path: Path) -> None:
    done = subprocess.run(
        [MOIM, "user", "list", "--site", tmp_path / "none"], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 3
    assert "moim up" in done.stderr


def test_help_teaches() -> None:
    for words in ((), ("up",), ("status",), ("user", "add"), ("user", "import"), ("discover",), ("space", "create")):
        done = subprocess.run([MOIM, *words, "--help"], capture_output=True, text=True, timeout=30)
        assert done.returncode == 0
        assert "--help" in done.stdout
        if words:
            assert "--site" in done.stdout


def test_users_and_spaces_by_command(own_site: RunningSite, tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("a long enough password\n")
    own_site.moim("user", "add", "dana@moim.test", "--password-file", str(secret))
    again = own_site.moim("user", "add", "dana@moim.test", "--password-file", str(secret), check=False)
    assert again.returncode != 0
    assert "dana@moim.test" in again.stderr
    listed = json.loads(own_site.moim("user", "list", "--json").stdout)
    assert {"alice@moim.test", "dana@moim.test"} <= {u["address"] for u in listed}
    space = json.loads(own_site.moim("space", "create", "주간 회의", "--json").stdout)
    assert space["callId"] in space["link"]
    assert space["passcode"]
    own_site.moim("user", "remove", "dana@moim.test")
    listed = json.loads(own_site.moim("user", "list", "--json").stdout)
    assert "dana@moim.test" not in {u["address"] for u in listed}
    own_site.stop()  # the same commands work on a site that does not run
    own_site.moim("user", "add", "erin@moim.test", "--password-file", str(secret))
    assert "erin@moim.test" in own_site.moim("user", "list").stdout


def test_import_tells_each_bad_row(own_site: RunningSite, tmp_path: Path) -> None:
    rows = [f"u{i}@moim.test,password-{i:06},User {i}" for i in range(500)]
    rows[7] = "not an address,password-000007,Bad"
    rows[9] = "u9@moim.test,,No password"
    file = tmp_path / "people.csv"
    file.write_text("address,password,display_name\n" + "\n".join(rows) + "\n", encoding="utf-8")
    done = own_site.moim("user", "import", str(file), check=False)
    assert done.returncode == 1
    assert "line 9" in done.stderr
    assert "line 11" in done.stderr
    assert len(json.loads(own_site.moim("user", "list", "--json").stdout)) == 498 + 3


def test_settings_that_cannot_be_used_end_the_start(own_site: RunningSite) -> None:
    own_site.stop()
    with (own_site.root / "moim.toml").open("a") as file:
        file.write("\n[chat]\nmax_stanza_byts = 1\n")
    done = subprocess.run(
        [MOIM, "up", "--site", own_site.root], capture_output=True, text=True, timeout=30,
        env=os.environ | {"COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 3
    assert "unknown key 'chat.max_stanza_byts'" in done.stderr
    assert "max_stanza_bytes" in done.stderr
