"""`make status`: a stack at a glance, by the local cloud, the stack's outputs and the service's API."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from tools import failures, summary
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack
from tools.real_stack import RealStack
from tools.service_api import Api, Away, Refused

#: seconds that a look may take: whoever asks how things are doesn't wait for what is broken
TIMEOUT = 10.0
#: seconds after which a pass of the reconciler is overdue: it runs each minute, from Cloud Scheduler as well
PASS_OVERDUE = 300.0
PAGE = 200


ORDER = (
    "Local cloud", "Service", "Revision", "Broker", "Kill switch", "Database", "Gateway VM", "Reconciler",
    "Droplet", "Account", "Quarantine",
)  # fmt: skip


class Level(StrEnum):
    """How a part is."""

    WELL = "well"
    #: on its way
    BUSY = "busy"
    #: it should run, and doesn't: the exit code is 1
    BAD = "bad"
    #: as a person wants it, and to be kept in mind
    NOTE = "note"
    OFF = "off"


KINDS = {"gce": "Gateway VM", "sql": "Database", "droplet": "Droplet"}
PAINT = {Level.WELL: "\x1b[32m", Level.BUSY: "\x1b[33m", Level.BAD: "\x1b[31m", Level.NOTE: "\x1b[33m"}


@dataclass(frozen=True)
class Part:
    """A line of the table."""

    kind: str
    name: str
    state: str
    level: Level
    #: ISO 8601, since when; empty if nobody knows
    since: str = ""
    detail: str = ""
    #: one sentence: what to do about it
    remedy: str = ""

    def words(self) -> tuple[str, ...]:
        """What a person may call it; an account's droplet by the droplet's name as well."""
        kind = self.kind.lower()
        return (self.name, kind, kind.partition(" ")[0], self.detail.partition(",")[0])


@dataclass
class Report:
    """All that is known of a stack."""

    stack: str
    resources: int | None
    parts: list[Part] = field(default_factory=list)
    urls: dict[str, str] = field(default_factory=dict)
    #: what couldn't be looked at, and what it takes
    unknown: list[str] = field(default_factory=list)

    @property
    def is_well(self) -> bool:
        """Whether all that should run does."""
        return all(part.level is not Level.BAD for part in self.parts)

    def about(self, name: str) -> Report:
        """The parts of a name or kind (`ib-demo-1a2b3c4d`, `service`), or all. Raises CommandFailed."""
        if not name:
            return self
        found = [part for part in self.parts if name in part.words()]
        if not found:
            known = ", ".join(sorted({part.name or part.kind.lower() for part in self.parts})) or "nothing"
            raise CommandFailed(f"Nothing of {self.stack} is named {name!r}. There are: {known}")
        return replace(self, parts=found)


def of_local(stack: LocalStack) -> Report:
    """The stack `local`. Raises CommandFailed where its local cloud can't be asked."""
    report = Report(stack.name, stack.resources())
    if not stack.cloud.is_running():
        if report.resources:
            said = "it was ended, or killed, with the stack up"
            report.parts = [
                Part("Local cloud", "", "down", Level.BAD, "", said, "`make up` starts it again.")
            ]
        return report
    machines = stack.cloud.machines()
    outputs = stack.outputs()
    declared = set(outputs.get("droplets") or {})
    service: list[Part] = []
    if outputs.get("service_url"):
        service = of_service(outputs, stack.token("operator"), report)
    made = {part.detail.partition(",")[0] for part in service if part.kind == "Account"} - {""}
    report.parts = [
        *service,
        *(of_instance(machine) for machine in machines if machine["kind"] == "run"),
        *(of_machine(machine, declared) for machine in machines if shown(machine, made)),
    ]
    report.parts.sort(key=lambda part: ORDER.index(part.kind))
    return report


def of_real(stack: RealStack, token: Callable[[], str]) -> Report:
    """A stack in real clouds; `token` gives an operator's token or raises CommandFailed."""
    outputs = stack.outputs()
    report = Report(stack.name, stack.resources())
    if not outputs.get("service_url"):
        return report
    try:
        given = token()
    except CommandFailed as failure:
        given = ""
        report.unknown.append(f"Broker, accounts, reconciler and kill switch: {failure}")
    report.parts = of_service(outputs, given, report)
    if outputs.get("gateway_host"):
        address = f"{outputs['gateway_host']}:{int(outputs.get('gateway_port') or 0)}"
        said = f"{address}, see Broker; its console: make logs STACK={stack.name} NAME=gateway"
        report.parts.append(Part("Gateway VM", "ibkr-gateway", "declared", Level.OFF, "", said))
    for name, address in sorted((outputs.get("droplets") or {}).items()):
        report.parts.append(Part("Droplet", name, "declared", Level.OFF, "", str(address)))
    return report


def of_service(outputs: Mapping[str, Any], token: str, report: Report) -> list[Part]:
    """What the service says of itself and of what it looks after."""
    url = str(outputs["service_url"])
    report.urls = {"Service": url, "Dashboard": f"{url}/login", "API": f"{url}/docs"}
    api = Api(url, token, TIMEOUT)
    try:
        api.get("/readyz")
    except (Refused, Away) as failure:
        said = str(failure).removeprefix("GET /readyz: ")
        return [Part("Service", url, "not ready", Level.BAD, "", said, "`make logs NAME=service` says why.")]
    parts = [Part("Service", url, "ready", Level.WELL, "", "its database answers")]
    if not token:
        return parts
    questions: list[tuple[str, str, Callable[[Any], list[Part]]]] = [
        ("Broker", "/api/v1/connections/default/health", of_broker),
        ("Kill switch", "/api/v1/halt", of_halt),
    ]
    if outputs.get("accounts_url"):
        questions.append(("Reconciler", "/api/v1/fleet", of_fleet))
    for kind, path, read in questions:
        try:
            parts += read(api.get(path))
        except (Refused, Away) as failure:
            if isinstance(failure, Refused) and failure.status in (401, 403):
                report.unknown.append(f"{kind}: the token isn't an operator's of this service ({failure})")
            else:
                parts.append(Part(kind, "", "unknown", Level.BAD, "", str(failure)))
        else:
            parts += of_accounts(api) if kind == "Reconciler" else []
    return parts


def of_broker(health: Mapping[str, Any]) -> list[Part]:
    """The configured broker's connection."""
    details = health.get("details") or {}
    said = [details.get("account"), health["reason"], health["doing"]]
    level = Level.WELL if health["ok"] else Level.BAD
    remedy = "" if health["ok"] else "`make logs NAME=gateway` shows the gateway's side."
    if health.get("second_factor") and not health["ok"]:
        remedy = "Confirm the login on the phone."
    detail = ", ".join(str(part) for part in said if part)
    return [Part("Broker", "default", words(health["state"]), level, health["since"], detail, remedy)]


def of_halt(halt: Mapping[str, Any]) -> list[Part]:
    """The kill switch."""
    if not halt["halted"]:
        return [Part("Kill switch", "", "off", Level.WELL, halt["since"] or "", "orders may leave")]
    said = f"by {halt['by'] or halt['source']}: {halt['reason']}"
    remedy = "Trading is halted; lift it in the dashboard when its reason is gone."
    return [Part("Kill switch", "", "ON", Level.NOTE, halt["since"] or "", said, remedy)]


def of_fleet(fleet: Mapping[str, Any]) -> list[Part]:
    """The reconciler's last pass, and droplets that it doesn't know."""
    last, at = fleet["last_pass"], fleet["last_pass_at"] or ""
    if not last:
        return [Part("Reconciler", "", "no pass yet", Level.BUSY, "", "this instance has run none")]
    detail = f"{last['accounts']} accounts, {last['moving']} on their way, {last['droplets']} droplets"
    parts = []
    if last["problem"]:
        remedy = "It is tried again by itself; docs/runbooks.md where it lasts."
        parts = [Part("Reconciler", "", "hindered", Level.BAD, at, last["problem"], remedy)]
    elif age(at) > PASS_OVERDUE:
        parts = [Part("Reconciler", "", "overdue", Level.BAD, at, detail, "`make logs NAME=service`")]
    else:
        parts = [Part("Reconciler", "", "passed", Level.WELL, at, detail)]
    for droplet in fleet["quarantine"]:
        said = f"a droplet that the database can't explain, of {droplet['account_id'] or 'no account'}"
        remedy = "A person decides: docs/runbooks.md, unknown droplets."
        parts.append(
            Part("Quarantine", droplet["name"], "unknown", Level.NOTE, droplet["first_seen"], said, remedy)
        )
    return parts


def of_accounts(api: Api) -> list[Part]:
    """Users' accounts with their droplets, deleted ones left out."""
    parts, after = [], ""
    while True:
        page = api.get(f"/api/v1/fleet/accounts?limit={PAGE}&after={after}")
        parts += [of_account(account) for account in page["accounts"]]
        if not page["next"]:
            return parts
        after = page["next"]


def of_account(account: Mapping[str, Any]) -> Part:
    """One account."""
    status, wanted = account["status"], account["wanted"]
    level = Level.BUSY if status in ("provisioning", "initializing") else Level.OFF
    remedy = ""
    if status == "running":
        level = Level.WELL if wanted == "running" else Level.BUSY
    elif status == "error":
        level = Level.BAD if wanted == "running" else Level.NOTE
        remedy = account["message"]
    elif account["reason"] == "second_factor":
        level, remedy = Level.NOTE, account["message"]
    droplet = account["droplet_name"] or "no droplet"
    said = f"{droplet}, user {account['user_id']}" + (
        f", {words(account['reason'])}" * bool(account["reason"])
    )
    return Part("Account", account["account_id"], status, level, account["since"], said, remedy)


def of_instance(machine: Mapping[str, Any]) -> Part:
    """A revision of the service in the local cloud."""
    name, software = machine["name"].rpartition("/")[2], machine["software"] or {}
    said = f"{software.get('ready', 0)} of {software.get('instances', 1)} instances"
    said += f", {software['restarts']} restarts" if software.get("restarts") else ""
    if machine["status"] in failures.PASSING:
        return Part("Revision", name, machine["status"].lower(), Level.BUSY, "", said)
    well = machine["status"] == "RUNNING" and software.get("ready")
    level = Level.WELL if well else Level.BAD
    remedy = "" if well else "`make logs NAME=service` says why."
    return Part("Revision", name, "serving" if well else machine["status"].lower(), level, "", said, remedy)


def of_machine(machine: dict[str, Any], declared: set[str]) -> Part:
    """A VM, a database or a declared droplet of the local cloud."""
    kind = KINDS[machine["kind"]]
    short = machine["name"].rpartition("/")[2]
    name = machine["title"] or short
    ports = ",".join(str(port) for port in machine["ports"])
    detail = f"{machine['address']}:{ports}" if ports else machine["address"] or "no address"
    if machine["kind"] == "droplet":
        detail += ", declared" if name in declared else ", of no account"
    wrong = failures.ailing(machine)
    if (
        not wrong
        and machine["kind"] == "sql"
        and machine["status"] == "RUNNING"
        and not (machine["software"] or {}).get("running")
    ):
        wrong = "PostgreSQL doesn't run"
    if wrong:
        remedy = f"`make logs NAME={name}` says why."
        return Part(kind, name, "ailing", Level.BAD, "", f"{detail}; {wrong}", remedy)
    level = Level.BUSY if machine["status"] in failures.PASSING else Level.WELL
    return Part(kind, name, machine["status"].lower(), level, "", detail)


def shown(machine: Mapping[str, Any], made: set[str]) -> bool:
    """Whether a machine has a line of its own: an account's droplet stands with its account."""
    return machine["kind"] in KINDS and machine["title"] not in made


def words(text: Any) -> str:
    """`link_lost` as people write it."""
    return str(text).replace("_", " ")


def age(since: str) -> float:
    """Seconds since a moment in ISO 8601."""
    return (datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()


def ago(since: str) -> str:
    """How long it has been so: `42 s`, `12 min`, `3 h`, `2 d`; empty if nobody knows."""
    if not since:
        return ""
    seconds = max(age(since), 0.0)
    for limit, size, unit in ((60, 1, "s"), (3600, 60, "min"), (172_800, 3600, "h")):
        if seconds < limit:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds // 86400:.0f} d"


def as_json(report: Report) -> str:
    """For programs: the report's fields, `well`, and of each part `kind`, `name`, `state`, `level` ..."""
    return json.dumps({**asdict(report), "well": report.is_well}, indent=2)


def as_text(report: Report) -> str:
    """For people: a table, what needs somebody, where everything is."""
    if not report.resources and not report.parts:
        start = "make up" if report.stack == "local" else f"make up STACK={report.stack}"
        return f"Nothing of the stack {report.stack} is there. `{start}` makes it."
    lines = [summary.painted(f"Stack {report.stack}", summary.BOLD) + count(report.resources)]
    lines += table(report.parts)
    lines += ["", *(f"  {label:<10} {url}" for label, url in report.urls.items())] if report.urls else []
    needs = [part for part in report.parts if part.remedy]
    if needs:
        lines += ["", summary.painted("Needs attention", summary.BOLD)]
        lines += [f"  {part.kind} {part.name}: {part.remedy}".replace(" :", ":") for part in needs]
    lines += [f"Not known: {text}" for text in report.unknown]
    return "\n".join(lines)


def count(resources: int | None) -> str:
    """The number of resources, where it is known."""
    return "" if resources is None else f", {resources} resources"


def table(parts: Sequence[Part]) -> list[str]:
    """The parts in columns, their states coloured."""
    rows = [(part.kind, part.name, part.state, ago(part.since), part.detail) for part in parts]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
    lines = []
    for part, row in zip(parts, rows, strict=True):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        paint = PAINT.get(part.level, "")
        cells[2] = summary.painted(cells[2], paint) if paint else cells[2]
        lines.append("  " + "  ".join([*cells, row[4]]).rstrip())
    return lines
