"""`make logs`: what the service, a gateway VM, a droplet or the database says, as it says it or its end."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tools import service_check, summary
from tools.failures import STAMP
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack
from tools.real_stack import GATEWAY, RealStack
from tools.service_api import Api

#: bytes of what was said before that are shown first, about forty lines
BEFORE = 8_000
#: members of the service's lines that a person can do without
QUIET = ("event", "level", "severity", "logger", "timestamp", "request_id")
# Machines of the local cloud by their kinds, in the words of `make status`.
SHORT = {"run": "service", "gce": "gateway", "sql": "database"}
ACCOUNT = re.compile(r"ib-(live|paper|demo)-[0-9a-f]+")


@dataclass(frozen=True)
class Source:
    """Something that has a log: the local cloud's name of it, and what people may call it."""

    machine: str
    names: tuple[str, ...]
    what: str


def sources(stack: LocalStack) -> list[Source]:
    """All that has a log now."""
    found = []
    for machine in stack.cloud.machines():
        kind, name = machine["kind"], machine["name"]
        if kind == "run":  # whichever revision serves
            name = name.rpartition("/")[0]
        names = [SHORT[kind]] if kind in SHORT else []
        names += [machine["title"]] if machine["title"] else []
        names += [name.rpartition("/")[2], name]
        found.append(Source(name, tuple(dict.fromkeys(names)), kind))
    several = {one.what for one in found if sum(one.what == other.what for other in found) > 1}
    # Of two gateway VMs neither is `gateway`.
    found = [
        Source(one.machine, one.names[1:] if one.what in several & set(SHORT) else one.names, one.what)
        for one in dict.fromkeys(found)
    ]
    found += [
        Source("daemon", ("daemon",), "the local cloud"),
        Source("exchange", ("exchange",), "the exchange"),
    ]
    return [*found, *of_accounts(stack, {one.machine for one in found})]


def of_accounts(stack: LocalStack, machines: set[str]) -> list[Source]:
    """Users' droplets by their accounts' ids; none while the service can't be asked."""
    outputs = stack.outputs()
    if not outputs.get("accounts_url"):
        return []
    api = Api(str(outputs["service_url"]), stack.token("operator"), timeout=5)
    try:
        accounts = api.get("/api/v1/fleet/accounts?limit=200")["accounts"]
    except CommandFailed:
        return []
    droplets = {account["account_id"]: f"droplet/{account['service_id']}" for account in accounts}
    return [
        Source(droplet, (account,), "account") for account, droplet in droplets.items() if droplet in machines
    ]


def of_local(stack: LocalStack, name: str, follow: bool) -> None:
    """Show a log of the local stack, or without a name which there are. Raises CommandFailed."""
    if not stack.cloud.is_running():
        raise CommandFailed("The local cloud doesn't run, so nothing is said. `make up` starts it.")
    if not name:
        print(summary.painted("What can be followed (make logs NAME=...)", summary.BOLD))
        print(listed(sources(stack)))
        return
    machine = chosen(name, lambda: sources(stack))
    lines = stack.cloud.follow(machine, BEFORE) if follow else stack.cloud.log(machine).splitlines()
    show(lines)


def chosen(name: str, known: Callable[[], list[Source]]) -> str:
    """The machine of a name. Raises CommandFailed with all names."""
    there = known()
    found = {source.machine for source in there if name in source.names}
    if len(found) == 1:
        return found.pop()
    if re.fullmatch(r"(run|droplet|gce|sql|job)/[\w./-]+", name):
        return name  # of something that is gone: its log is kept
    raise CommandFailed(f"Nothing that has a log is named {name!r}. There are:\n{listed(there)}")


def listed(there: list[Source]) -> str:
    """What there is, by its shortest names."""
    words = {"run": "the service", "gce": "a gateway VM", "sql": "the database", "job": "a job"}
    return summary.table(
        [(one.names[0], words.get(one.what, one.what), " ".join(one.names[1:])) for one in there]
    )


def show(lines: Iterator[str] | list[str]) -> None:
    """Print lines; on a terminal the service's JSON as people read it."""
    terminal = sys.stdout.isatty()
    for line in lines:
        print(readable(line) if terminal else line, flush=True)


def readable(line: str) -> str:
    """A line whose message is JSON as `time source LEVEL event key=value ...`; another one as it is."""
    stamp = STAMP.match(line)
    if stamp is None:
        return line
    try:
        told = json.loads(line[stamp.end() :])
    except ValueError:
        told = None
    if not isinstance(told, dict) or "event" not in told:
        return line
    rest = " ".join(
        f"{key}={value}" for key, value in told.items() if key not in QUIET and value not in (None, "")
    )
    level = str(told.get("severity") or told.get("level", "")).upper()
    return f"{line[11:23]} {stamp[1]} {level:<7} {told['event']}  {rest}".rstrip()


def of_real(stack: RealStack, name: str, follow: bool, token: Callable[[], str]) -> None:
    """Show a log of a stack in real clouds, by gcloud; an account's by the service. Raises CommandFailed."""
    if name in ("", "service"):
        query = 'resource.type="cloud_run_revision"'
        form = ("--format", "value(timestamp,severity,textPayload,jsonPayload)")
        stack.gcloud("logging", "read", query, "--limit", "100", *form)
        if follow:
            stack.gcloud("beta", "logging", "tail", query, *form)
        return
    if name in ("gateway", GATEWAY):
        verb = "tail-serial-port-output" if follow else "get-serial-port-output"
        stack.gcloud("compute", "instances", verb, GATEWAY, "--zone", stack.zone())
        return
    if not ACCOUNT.fullmatch(name):
        raise CommandFailed(
            f"Nothing of {stack.name} that has a log is named {name!r}. There are: service, gateway, and the "
            "account ids of the token's user (ib-demo-...)."
        )
    url = str(stack.outputs().get("service_url") or "")
    if not url:
        raise CommandFailed(f"There is no service: `make up STACK={stack.name}` makes it.")
    api = Api(url, token(), service_check.SECONDS_TO_CONNECT)
    show(api.get(f"/api/v1/brokers/interactivebrokers/accounts/{name}/logs?lines=200")["lines"])
