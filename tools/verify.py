"""`make verify`: has a stack's service try its gateway, which unlocks live trading, and shows the checks."""

import json
import urllib.error
import urllib.request
from urllib.parse import quote

from tools import service_check, summary
from tools.local_cloud import CommandFailed

#: seconds: an order is placed and cancelled, at a broker that may take its time
TIMEOUT = 120.0


def verify(url: str, token: str, connection: str = "default") -> bool:
    """Whether the gateway of a connection passed. Raises `CommandFailed` where nothing could be tried."""
    request = urllib.request.Request(
        f"{url}/api/v1/connections/{quote(connection, safe='')}/verification",
        data=b"{}",
        method="POST",
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            found = json.load(answer)
    except urllib.error.HTTPError as error:
        said = service_check.reason_in(error)
        raise CommandFailed(f"The service answers {error.code}, and nothing was tried: {said}") from None
    except OSError as error:
        raise CommandFailed(f"{url} doesn't answer, and nothing was tried: {error}") from None
    rows: list[tuple[str, ...]] = [
        (check["name"], "pass" if check["passed"] else "FAIL", check["found"], check["remedy"])
        for check in found["checks"]
    ]
    print(summary.painted(f"{found['gateway']}, account {found['account']}", summary.BOLD))
    print(summary.table(rows))
    live = found["mode"] != "paper"
    if found["passed"]:
        print("Passed." + (" Live orders may leave through this gateway for 30 days." if live else ""))
    else:
        print("Failed." + (" Live orders are locked until it passes." if live else ""))
    return bool(found["passed"])
