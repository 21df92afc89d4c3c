"""What the commands say at their end, from the stack's outputs and the daemon."""

import os
import sys
from collections.abc import Mapping
from typing import Any

from tools.service_check import Health

BOLD, DIM, PLAIN = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def painted(text: str, paint: str) -> str:
    """The text in bold or dim on a terminal that wants colour."""
    return f"{paint}{text}{PLAIN}" if sys.stdout.isatty() and "NO_COLOR" not in os.environ else text


def running(outputs: Mapping[str, Any], health: Health, token: str = "") -> str:
    """What runs now, and commands to try that work as they stand; a login link with the token."""
    lines = ["", painted("What runs now", BOLD)]
    rows = [("Service", str(outputs.get("service_url", "none")))]
    if outputs.get("gateway_host"):
        address = f"{outputs['gateway_host']}:{int(outputs.get('gateway_port') or 0)}"
        if outputs.get("second_gateway_port"):
            address += f" and {int(outputs['second_gateway_port'])}"
        rows.append(
            ("Gateway VM", f"ibkr-gateway, {address} (only the service reaches it; for you: make tunnel)")
        )
    for name, address in sorted((outputs.get("droplets") or {}).items()):
        rows.append(("IBeam droplet", f"{name}, {address}"))
    rows.append(("Broker", broker(health)))
    rows.append(("Bearer token", "make -s token"))
    lines += [f"  {label:<14} {text}" for label, text in rows]
    if outputs.get("service_url"):
        lines += [
            "",
            painted("Try", BOLD),
            *[f"  {command}" for command in tries(str(outputs["service_url"]))],
            *[f"  {connect(str(outputs[name]))}" for name in ("accounts_url",) if outputs.get(name)],
        ]
    if outputs.get("service_url") and token:
        lines += ["", painted("Dashboard", BOLD), f"  {login_link(str(outputs['service_url']), token)}"]
    lines += [
        "",
        painted("make demo | status | logs | tunnel | dashboard | destroy; make help lists them all", DIM),
    ]
    return "\n".join(lines)


def next_for(stack: str) -> str:
    """What to do after `up` of a stack in real clouds."""
    if stack.startswith("foundation-"):
        return f"\nNext: make image STACK={stack.removeprefix('foundation-')}, then make up of that stack."
    return (
        f"\nA gateway needs some minutes to boot and to log in: make logs STACK={stack} NAME=gateway\n"
        f"Next: make status STACK={stack}, then TOKEN=... make verify STACK={stack}: it unlocks live orders."
    )


def broker(health: Health) -> str:
    """The broker's health in a few words."""
    return health.says if health.ok else f"NOT connected: {health.says}"


def login_link(url: str, token: str) -> str:
    """Opens the dashboard without a question. Browsers keep to themselves what is behind the `#`."""
    return f"{url}/login#{token}"


def tries(url: str) -> list[str]:
    """Account, positions and an order; each may be typed again, the order too (a new id each time)."""
    base = f"{url}/api/v1/connections/default"
    curl = 'curl -s -H "Authorization: Bearer $(make -s token)"'
    new_id = "'$(date +%s%N)'"
    order = f'{{"symbol":"AAPL","side":"buy","qty":1,"order_type":"market","client_order_id":"{new_id}"}}'
    return [
        f"{curl} {base}/account",
        f"{curl} {base}/positions",
        f"{curl} -H 'Content-Type: application/json' -d '{order}' {base}/orders",
    ]


def connect(url: str) -> str:
    """Connects an IBKR account: the service makes a droplet for it. Typed again, it is the same account."""
    curl = 'curl -s -H "Authorization: Bearer $(make -s token)"'
    return f"{curl} -H 'Content-Type: application/json' -d \"$(make -s login)\" {url}/connect"


def table(rows: list[tuple[str, ...]]) -> str:
    """Rows as columns of even width."""
    if not rows:
        return ""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
