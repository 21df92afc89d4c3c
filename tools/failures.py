"""What a failed command says: the cause and the remedy first, and where the log is last."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.engine_log import Engine
from tools.local_cloud import CommandFailed
from tools.service_check import Health

#: lines of a machine's log, or of the engine's, that are shown with a failure
SHOWN = 6
# Google's advice about a container that doesn't come up, which is long and says nothing of this one.
ADVICE = re.compile(r" This can happen when the container port.*?might contain more information\.", re.DOTALL)
MACHINE = re.compile(r" *\(Here: localcloud logs (\S+)\)(?:, [A-Z_]+$)?")
UNREADABLE = re.compile(r"incorrect passphrase|passphrase must be set", re.IGNORECASE)
NOT_LOGGED_IN = re.compile(
    r"PULUMI_ACCESS_TOKEN must be set|could not get cloud url|no Pulumi.*login", re.IGNORECASE
)
#: states of a machine of the local cloud that pass by themselves
PASSING = ("PROVISIONING", "STAGING", "STOPPING")
AGAIN = "Mend that, then type the same command: it goes on from there."
STAMP = re.compile(r"^\S+Z ([\w.-]+): ")

NO_SECRETS = (
    "Pulumi can't read the stack's secrets. `local`: put .local/passphrase back, or begin anew: "
    "`make clean`. Other stacks: export PULUMI_CONFIG_PASSPHRASE, or PULUMI_CONFIG_PASSPHRASE_FILE."
)
NO_STATE = (
    "Pulumi isn't told where the stack's state is: export PULUMI_BACKEND_URL=gs://YOUR_STATE_BUCKET "
    "(docs/production.md, step 1)."
)

Tail = Callable[[str], Sequence[str]]


def of_engine(command: str, engine: Engine, log: Path, tail: Tail, cloud_runs: bool) -> str:
    """A run over the local cloud that didn't get to its end; `tail` gives a machine's last lines."""
    lines = [f"`make {command}` didn't get to its end."]
    if not cloud_runs:
        lines.append("  The local cloud ended meanwhile: it was killed, or the machine is out of memory.")
        lines.append(f"Type the same command: it starts again and goes on. Log: {log}")
        return "\n".join(lines)
    errors = [f"{resource}: {text}" if resource else text for resource, text in engine.errors]
    if not errors:
        errors = [line for line in _read(log) if line.strip()][-SHOWN:]
    remedies = {remedy for error in errors if (remedy := known_remedy(error))}
    for error in errors:
        lines += [f"  {line}" for line in ADVICE.sub("", MACHINE.sub("", error)).splitlines()]
        for machine in MACHINE.findall(error):
            lines += ["  It said last:", *(f"    {line}" for line in said_last(tail(machine)))]
            remedies.add(f"{AGAIN} All that it said: make logs NAME={machine}")
    lines += sorted(remedies) or [AGAIN]
    lines.append(f"Log: {log}")
    return "\n".join(lines)


def of_broker(health: Health, machines: Sequence[dict[str, object]], tail: Tail) -> str:
    """All was made, and the service has no connection to its broker."""
    lines = [f"The stack is up, but its broker isn't connected: {health.says}."]
    for machine in machines:
        if machine["kind"] == "gce":
            name = str(machine["name"])
            lines += [f"  {name}: {ailing(machine) or 'the machine runs'}. Its console ends with:"]
            lines += [f"    {line}" for line in said_last(tail(name))]
            lines += [f"All that it said: make logs NAME={name}. `make status` tells when it is back."]
            anew = f"`.venv/bin/python -m localcloud delete-machine {name.rpartition('/')[2]}`"
            lines.append(
                "It applies its cloud-init at its first boot only. To have it made anew: "
                f"{anew}, `make refresh`, `make up`."
            )
    return "\n".join(lines)


def ailing(machine: dict[str, object]) -> str:
    """What is wrong with a machine of the local cloud, which nothing mends by itself; empty if nothing is."""
    if machine.get("status") in PASSING:
        return ""
    if machine.get("status") != "RUNNING":
        return f"it is {machine.get('status')}"
    software = machine.get("software")
    if machine["kind"] not in ("gce", "droplet") or not isinstance(software, dict):
        return ""
    progress, failed = software.get("cloud_init"), software.get("failed") or []
    if progress == "error":
        return "its cloud-init failed"
    if failed:
        return f"{', '.join(failed)} failed"
    if progress == "done" and not software.get("units"):
        return "its cloud-init made no services"
    return ""


def known_remedy(error: str) -> str:
    """What to do about an error of Pulumi's own; empty for those that say it themselves."""
    if UNREADABLE.search(error):
        return NO_SECRETS
    return NO_STATE if NOT_LOGGED_IN.search(error) else ""


def said_last(lines: Sequence[str]) -> list[str]:
    """The end of a machine's log, without times and without what the local cloud itself says."""
    told = [STAMP.sub("", line) for line in lines if " console: " not in line or "cloud-init" in line]
    return [line[:300] for line in told if line.strip()][-SHOWN:]


def with_remedy(failure: CommandFailed) -> CommandFailed:
    """The same failure with what to do about it, where that is known and not said."""
    remedy = known_remedy(str(failure))
    return CommandFailed(f"{failure}\n{remedy}") if remedy and remedy not in str(failure) else failure


def _read(log: Path) -> list[str]:
    try:
        return log.read_text(errors="replace").splitlines()
    except OSError:
        return []
