"""Runs slixmpp's own integration tests against a new site. Meant for a host of its own: see ``test_slixmpp_suite``.

Arguments: a folder to work in, and the unpacked source distribution. Prints the suite's report and exits as it does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from running_site import RunningSite

DOMAIN = "prosody"  # the name that the suite's component test takes for granted
STATUS = "http://127.0.0.1:8080/no-outage"
SETTINGS = f"""
[chat]
outage_status_addresses = ["{STATUS}"]
components = {{ "slixmpp.{DOMAIN}" = "secret" }}
"""


def main() -> int:
    """Makes the site, runs the suite, stops the site."""
    folder, source = Path(sys.argv[1]), Path(sys.argv[2])
    site = RunningSite(folder / "site")
    site.start("--domain", DOMAIN, "--ports", "standard", "--demo")
    site.stop()
    with (site.root / "moim.toml").open("a", encoding="utf-8") as file:
        file.write(SETTINGS)
    site.start()
    try:
        passwords = {address.partition("@")[0]: word for address, word in site.passwords.items()}
        environment = os.environ | {
            "CI": "woodpecker",
            "CI_ACCOUNT1": f"alice@{DOMAIN}",
            "CI_ACCOUNT1_PASSWORD": passwords["alice"],
            "CI_ACCOUNT2": f"bob@{DOMAIN}",
            "CI_ACCOUNT2_PASSWORD": passwords["bob"],
            "CI_MUC_SERVER": f"rooms.{DOMAIN}",
            "SSL_CERT_FILE": str(site.ca),
        }
        done = subprocess.run([sys.executable, "-W", "ignore", "run_integration_tests.py"], cwd=source, env=environment)
        if done.returncode:
            print(site.logs(), file=sys.stderr)
        return done.returncode
    finally:
        site.stop()


if __name__ == "__main__":
    sys.exit(main())
