"""The Makefile's commands on a stack: `python -m tools.stack COMMAND [--stack local] ...`."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools import demo, pulumi_cli, pulumi_process, service_check, summary
from tools.environments import MAIN
from tools.local_cloud import CommandFailed
from tools.local_stack import STACK, LocalStack
from tools.operator_token import operator_token
from tools.real_stack import RealStack
from tools.restore import restore
from tools.rollback import given, roll_back
from tools.steps import Progress, SetupFailed
from tools.verify import Wanted, login_file, verify


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(prog="python -m tools.stack", description=__doc__)
    changing = ["up", "preview", "drift", "destroy", "refresh", "rollback", "restore"]
    looking = ["status", "logs", "output", "token", "login", "dashboard", "env"]
    result.add_argument("command", choices=[*changing, *looking, "verify", "tunnel", "demo"])
    result.add_argument("--stack", default=STACK, help="which stack (default: local)")
    result.add_argument(
        "--name", default="", help="an output's, a machine's (logs, tunnel) or a connection's (verify)"
    )
    result.add_argument("--port", type=int, default=4002, help="the machine's port that tunnel leads to")
    result.add_argument("--listen", default="", help="where tunnel listens (default: the same port here)")
    result.add_argument("--decisions", default="", help="what becomes of each order (rollback)")
    result.add_argument("--login", default="", help="a file with a login, or - for standard input (verify)")
    result.add_argument("--backup", default="", help="a backup's ID (restore)")
    result.add_argument("--image", default="", help="the service's image in place of the configured one")
    result.add_argument("--yes", action="store_true", help="don't ask (stacks other than local)")
    return result


def up(stack: LocalStack) -> None:
    """Make the local stack, wait until it works, say what runs."""
    stack.up()
    outputs = stack.outputs()
    health = service_check.Health(False, "no service is declared")
    if outputs.get("service_url"):
        with Progress("Waiting for the gateway's login"):
            health = service_check.wait(str(outputs["service_url"]), stack.token())
    print(summary.running(outputs, health, stack.token()))


def service_url(outputs: Mapping[str, Any]) -> str:
    """Where the service is. Raises CommandFailed."""
    if not outputs.get("service_url"):
        raise CommandFailed("There is no service: `make up` starts it.")
    return str(outputs["service_url"])


def destroy(stack: LocalStack) -> None:
    """Take the local stack away and end the local cloud."""
    stack.destroy()
    print("Nothing of the local stack runs.")


def status(stack: LocalStack) -> None:
    """What of the local stack runs, and how it is."""
    if not stack.cloud.is_running():
        held = "" if stack.is_empty() else " The stack isn't empty: `make up` starts it again."
        print(f"The local cloud doesn't run.{held}")
        return
    rows: list[tuple[str, ...]] = [
        (str(machine.get("name", "")), str(machine.get("status", "")), str(machine.get("address", "")))
        for machine in stack.cloud.machines()
    ]
    print(summary.painted("Machines", summary.BOLD))
    print(summary.table(rows) or "  none")
    url = stack.outputs().get("service_url")
    if url:
        health = service_check.health(str(url), stack.token())
        print(summary.painted("Service", summary.BOLD))
        print(f"  {url}\n  broker: {summary.broker(health)}")


def check_stack(stack: LocalStack | RealStack, token: str, connection: str, login: str) -> None:
    """Go through what an operator would try after `up`, with the gateway of a connection (default if empty).

    Raises `CommandFailed` if something failed.
    """
    if not verify(stack, token, Wanted(connection or "default", login_file(login))):
        raise CommandFailed("The table says what to mend; then run the same command again.")


def logs(stack: LocalStack, name: str) -> None:
    """A machine's log, or which machines there are."""
    if not stack.cloud.is_running():
        raise CommandFailed("The local cloud doesn't run. `make up` starts it.")
    if name:
        sys.stdout.write(stack.cloud.log(name))
        return
    for machine in stack.cloud.machines():
        print(summary.painted(f"== {machine['name']}  (make logs NAME={machine['name']})", summary.BOLD))
        print("\n".join(stack.cloud.log(machine["name"]).splitlines()[-5:]))


def tunnel(stack: LocalStack, name: str, port: int, listen: str) -> None:
    """Lead a port of this machine to a machine of the local cloud, until Ctrl-C."""
    argv = stack.cloud.argv("tunnel", name or "gce/ibkr-gateway", str(port), "--listen", listen)
    os.execv(argv[0], argv)


def show_output(outputs: dict[str, object], name: str) -> None:
    """One output, or the names of all."""
    if name not in outputs:
        known = ", ".join(sorted(outputs)) or "none; `make up` makes them"
        raise CommandFailed(f"There is no output {name!r}. There are: {known}")
    value = outputs[name]
    if isinstance(value, (dict, list)):
        value = json.dumps(value)
    print(f"{value:g}" if isinstance(value, float) else value)


def environment() -> str:
    """What a shell needs to run the CLI itself, as `make` does: `eval "$(make -s env)"`."""
    cli = pulumi_cli.locate()
    assert cli is not None  # `make` has set it up
    settings = pulumi_process.search_path(cli, MAIN.python)
    return "\n".join(f"export {name}={shlex.quote(value)}" for name, value in settings.items())


def person() -> Callable[[str], str] | None:
    """How a person at the terminal is asked; None where there is none."""
    return input if sys.stdin.isatty() else None


def run_local(options: argparse.Namespace) -> None:
    """A command on the stack `local`."""
    stack = LocalStack()
    if options.image:
        raise CommandFailed("IMAGE is for real stacks: `local` runs this checkout.")
    match options.command:
        case "up":
            up(stack)
        case "demo":
            demo.demo(stack)
        case "preview":
            stack.preview()
        case "drift":
            stack.drift()
        case "refresh":
            stack.refresh()
        case "destroy":
            destroy(stack)
        case "status":
            status(stack)
        case "verify":
            token = stack.token("operator", "trader", "user")
            check_stack(stack, token, options.name, options.login)
        case "rollback":
            roll_back(stack, stack.token(), given(options.decisions), person())
        case "restore":
            raise CommandFailed("The local database has no backups: it is a folder under .local/cloud.")
        case "logs":
            logs(stack, options.name)
        case "tunnel":
            tunnel(stack, options.name, options.port, options.listen)
        case "output":
            show_output(stack.outputs(), options.name)
        case "token":
            print(stack.token())
        case "login":
            print(json.dumps(stack.login()))
        case "dashboard":
            print(summary.login_link(service_url(stack.outputs()), stack.token()))


def run_real(options: argparse.Namespace) -> None:
    """A command on another stack."""
    stack = RealStack(options.stack, unattended=options.yes, image=options.image)
    match options.command:
        case "up" | "preview" | "drift" | "refresh" | "destroy":
            getattr(stack, options.command)()
        case "status":
            outputs = stack.outputs()
            print(summary.table([(name, str(value)) for name, value in sorted(outputs.items())]))
            print(f"More: gcloud run services list --project {stack.project()}; make logs STACK={stack.name}")
        case "verify":
            token = operator_token(stack.name, os.environ)
            check_stack(stack, token, options.name, options.login)
        case "rollback":
            token = operator_token(stack.name, os.environ)
            roll_back(stack, token, given(options.decisions), person())
        case "restore":
            restore(stack, options.backup, person(), options.yes)
        case "logs":
            stack.logs()
        case "tunnel":
            stack.tunnel(options.name, options.port, options.listen)
        case "output":
            show_output(stack.outputs(), options.name)
        case "demo":
            raise CommandFailed(
                f"The tour kills a gateway and deletes an account: not for {stack.name}, for `local` alone "
                "(`make demo`)."
            )
        case "token":
            raise CommandFailed(f"Tokens for {stack.name} come from its own issuer (ibkr:auth.issuer).")
        case "dashboard":
            print(f"{service_url(stack.outputs())}/login")
        case "login":
            raise CommandFailed("Only the local cloud's exchange gives logins away.")


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    options = parser().parse_args(arguments)
    options.listen = options.listen or f"127.0.0.1:{options.port}"
    try:
        if options.command == "env":
            print(environment())
            return 0
        (run_local if options.stack == STACK else run_real)(options)
    except (CommandFailed, SetupFailed) as failure:
        print(failure, file=sys.stderr)
        return 1
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - what is still to be flushed goes there
        return 0
    except KeyboardInterrupt:
        again = "" if options.command == "demo" else " The same command goes on from here."
        print(f"Interrupted.{again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
