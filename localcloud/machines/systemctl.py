"""The command `systemctl` of a machine."""

from __future__ import annotations

from localcloud.machines.units import UnitNotFound, Units, full_name

_JOB_FAILED = (1, "Job failed: the serial console says why")


async def systemctl(units: Units, arguments: list[str]) -> tuple[int, str]:
    """Does what systemctl does with these arguments; its exit status and what it prints."""
    options = {word for word in arguments if word.startswith("-")}
    words = [word for word in arguments if not word.startswith("-")]
    if not words:
        return 0, ""
    try:
        return await _do(units, words[0], words[1:], options)
    except UnitNotFound as error:
        return 5, str(error)


async def _do(units: Units, verb: str, names: list[str], options: set[str]) -> tuple[int, str]:
    wait = "--no-block" not in options
    if verb in ("start", "restart", "reload-or-restart", "try-restart"):
        act = units.start if verb == "start" else units.restart
        return (0, "") if await act(names, wait) else _JOB_FAILED
    if verb == "enable":
        units.enable(name for name in names if not units.ready_made(name))
        if "--now" in options and not await units.start(names, wait):
            return _JOB_FAILED
    elif verb == "disable":
        units.disable(names)
        if "--now" in options:
            await units.stop(names)
    elif verb == "stop":
        await units.stop(names)
    elif verb == "reset-failed":
        units.reset_failed(names)
    elif verb in ("daemon-reload", "daemon-reexec"):
        units.reload()
    else:
        return _ask(units, verb, names, options)
    return 0, ""


def _show(units: Units, name: str, options: set[str]) -> str:
    """Properties of a unit, as far as machines of ours ask for them."""
    described = units.status().get(name, {})
    known = {
        "ActiveState": units.state(name),
        "SubState": described.get("sub", "dead"),
        "MainPID": described.get("pid", 0),
        "NRestarts": described.get("restarts", 0),
        "InvocationID": "",  # there is no journal that it would be looked up in
    }
    wanted = [option.removeprefix("--property=") for option in options if option.startswith("--property=")]
    chosen = {key: known.get(key, "") for key in ",".join(wanted).split(",")}
    if "--value" in options:
        return "\n".join(str(value) for value in chosen.values())
    return "\n".join(f"{key}={value}" for key, value in chosen.items())


def _ask(units: Units, verb: str, names: list[str], options: set[str]) -> tuple[int, str]:
    if verb in ("is-active", "status"):
        states = [units.state(name) for name in names]
        return (0 if all(state == "active" for state in states) else 3), "\n".join(states)
    if verb == "show" and len(names) == 1:
        return 0, _show(units, full_name(names[0]), options)
    if verb == "is-enabled":
        enabled = units.enabled()
        all_enabled = all(full_name(name) in enabled for name in names)
        return (0, "enabled") if all_enabled else (1, "disabled")
    return 1, f"systemctl {verb}: the local cloud doesn't have this"
