"""`make verify`: goes through what an operator would try after `up`, item by item, and prints what it found.

The gateway itself is tried by the service (`broker.risk.verification`), which unlocks live trading. The
rest is looked at from here: what Cloud Run runs, what the dashboard shows, and, only with LOGIN, a
droplet's whole life.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools import droplet_trip, summary, verify_checks
from tools.deployed import CannotAsk, deployed
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack
from tools.real_stack import RealStack
from tools.verify_checks import FAILED, Row, Service


@dataclass(frozen=True)
class Wanted:
    """Which gateway, by its connection; and `login`: a file with one, "-" for standard input, "" for no
    droplet.
    """

    connection: str = "default"
    login: str = ""


def verify(stack: LocalStack | RealStack, token: str, wanted: Wanted | None = None) -> bool:
    """Print the table; whether nothing failed. Raises CommandFailed where nothing can be tried."""
    wanted = wanted or Wanted()
    login = droplet_trip.read_login(wanted.login) if wanted.login else None
    outputs = stack.outputs()
    if not outputs.get("service_url"):
        raise CommandFailed("There is no service to ask: `make up` makes it.")
    service = Service(str(outputs["service_url"]), token)
    rows = [verify_checks.reached(service)]
    gateway: dict[str, Any] | None = None
    if rows[0].state == FAILED:
        why = "the service doesn't answer"
        rows += [verify_checks.skipped(name, why) for name in verify_checks.NEED_SERVICE]
    else:
        gateway, tried = verify_checks.gateway(service, wanted.connection)
        rows += [*tried, verify_checks.dashboard(service, wanted.connection)]
    rows += _deployed(stack, outputs, gateway)
    if login is None:
        why = "costs a droplet and needs a login: LOGIN=<file>, or LOGIN=- and it on standard input"
        rows.append(verify_checks.skipped(droplet_trip.NAME, why))
    elif rows[0].state != FAILED:
        rows.append(droplet_trip.round_trip(service, login))
    _show(rows, gateway)
    return all(row.state != FAILED for row in rows)


def _deployed(
    stack: LocalStack | RealStack, outputs: dict[str, Any], gateway: dict[str, Any] | None
) -> list[Row]:
    try:
        found = deployed(stack)
    except CannotAsk as missing:
        return [verify_checks.skipped(name, str(missing)) for name in verify_checks.NEED_CLOUD_RUN]
    except CommandFailed as refused:
        remedy = "grant yourself roles/run.viewer"
        return [Row(name, FAILED, str(refused), remedy) for name in verify_checks.NEED_CLOUD_RUN]
    return [verify_checks.connector(found, outputs, gateway), verify_checks.environment(found, outputs)]


def _show(rows: list[Row], gateway: dict[str, Any] | None) -> None:
    if gateway:
        print(summary.painted(f"{gateway['gateway']}, account {gateway['account']}", summary.BOLD))
    print(summary.table([(row.name, row.state, row.found, row.remedy) for row in rows]))
    failed = [row.name for row in rows if row.state == FAILED]
    print(f"Failed: {', '.join(failed)}." if failed else "Nothing failed.")
    if gateway and gateway["mode"] != "paper":
        print(
            "Live orders may leave through this gateway for 30 days."
            if gateway["passed"]
            else "Live orders are locked until the gateway passes."
        )


def login_file(text: str) -> str:
    """LOGIN as it was written, if it names something. Raises CommandFailed."""
    if text and text != "-" and not Path(text).is_file():
        raise CommandFailed(f"LOGIN={text} is no file. Write the login into one, or use LOGIN=-.")
    return text
