"""The Makefile's commands on a stack: `python -m tools.stack COMMAND [--stack local] ...`."""

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tools import demo, failures, logs, machine, pulumi_cli, pulumi_process, service_check, status, summary
from tools.environments import MAIN
from tools.local_cloud import CommandFailed
from tools.local_stack import STACK, LocalStack
from tools.operator_token import operator_token
from tools.real_stack import RealStack
from tools.restore import restore
from tools.rollback import given, roll_back
from tools.steps import Progress, SetupFailed
from tools.verify import Wanted, login_file, verify

#: roles of whoever opens the local dashboard: the stack is theirs, its kill switch and its fleet with it
EVERYTHING = ("user", "trader", "operator")


class Unwell(Exception):
    """All was shown, and not all is well: only the exit code is still to be told."""


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
    result.add_argument("--follow", action="store_true", help="logs as they come, until Ctrl-C")
    result.add_argument("--json", action="store_true", help="status for programs")
    result.add_argument("--verbose", action="store_true", help="Pulumi's own lines as well (local)")
    result.add_argument("--yes", action="store_true", help="don't ask (stacks other than local)")
    return result


def up(stack: LocalStack) -> None:
    """Make the local stack, wait until it works, say what runs. Raises CommandFailed."""
    stack.up()
    outputs = stack.outputs()
    health = service_check.Health(False, "no service is declared")
    if outputs.get("service_url"):
        url = str(outputs["service_url"])
        check_address(url, stack.configuration())
        with Progress("Waiting for the gateway's login") as progress:
            health = service_check.wait(url, stack.token(), hopeless=lambda: gateway_ails(stack))
            if not health.ok:
                progress.result(health.says, failed=True)
        if not health.ok:
            raise CommandFailed(failures.of_broker(health, stack.cloud.machines(), stack.tail))
    print(summary.running(outputs, health, stack.token(*EVERYTHING)))


def gateway_ails(stack: LocalStack) -> bool:
    """Whether something is wrong with the gateway's machine that waiting doesn't mend."""
    machines = stack.cloud.machines()
    return any(failures.ailing(machine) for machine in machines if machine["kind"] == "gce")


def check_address(url: str, configuration: Mapping[str, Any]) -> None:
    """Whether the service is where droplets look for it. Raises CommandFailed."""
    fleet = configuration.get("ibkr:fleet") or {}
    declared = str(fleet.get("serviceUrl") or url)
    if fleet.get("enabled") and declared != url:
        raise CommandFailed(
            f"Another program of this machine has the service's address, {declared}. The service got {url}, "
            "where no droplet looks for it.\n"
            f"End that program (`ss -ltnp 'sport = :{declared.rpartition(':')[2]}'` shows it), then "
            "`make destroy` and `make up`."
        )


def service_url(outputs: Mapping[str, Any]) -> str:
    """Where the service is. Raises CommandFailed."""
    if not outputs.get("service_url"):
        raise CommandFailed("There is no service: `make up` starts it.")
    return str(outputs["service_url"])


def destroy(stack: LocalStack) -> None:
    """Take the local stack away and end the local cloud."""
    stack.destroy()
    print("Nothing of the local stack runs. `make up` makes it anew.")


def show_status(report: status.Report, as_json: bool) -> None:
    """Print it. Raises Unwell if something that should run doesn't."""
    print(status.as_json(report) if as_json else status.as_text(report))
    if not report.is_well:
        raise Unwell


def check_stack(stack: LocalStack | RealStack, token: str, connection: str, login: str) -> None:
    """Go through what an operator would try after `up`, with the gateway of a connection (default if empty).

    Raises `CommandFailed` if something failed.
    """
    if not verify(stack, token, Wanted(connection or "default", login_file(login))):
        raise CommandFailed("The table says what to mend; then run the same command again.")


def tunnel(stack: LocalStack, name: str, port: int, listen: str) -> None:
    """Lead a port of this machine to a machine of the local cloud, until Ctrl-C."""
    if not stack.cloud.is_running():
        raise CommandFailed("The local cloud doesn't run. `make up` starts it.")
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
    stack = LocalStack(verbose=options.verbose)
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
            print("The state says what there is. Where that isn't what is declared, `make up` makes it so.")
        case "destroy":
            destroy(stack)
        case "status":
            show_status(status.of_local(stack).about(options.name), options.json)
        case "verify":
            token = stack.token("operator", "trader", "user")
            check_stack(stack, token, options.name, options.login)
        case "rollback":
            roll_back(stack, stack.token(), given(options.decisions), person())
        case "restore":
            raise CommandFailed("The local database has no backups: it is a folder under .local/cloud.")
        case "logs":
            logs.of_local(stack, options.name, options.follow)
        case "tunnel":
            tunnel(stack, options.name, options.port, options.listen)
        case "output":
            show_output(stack.outputs(), options.name)
        case "token":
            print(stack.token())
        case "login":
            print(json.dumps(stack.login()))
        case "dashboard":
            print(summary.login_link(service_url(stack.outputs()), stack.token(*EVERYTHING)))


def run_real(options: argparse.Namespace) -> None:
    """A command on another stack."""
    stack = RealStack(options.stack, unattended=options.yes, image=options.image)
    match options.command:
        case "up" | "preview" | "drift" | "refresh" | "destroy":
            getattr(stack, options.command)()
            if options.command == "up":
                print(summary.next_for(stack.name))
        case "status":
            report = status.of_real(stack, lambda: operator_token(stack.name, os.environ))
            show_status(report.about(options.name), options.json)
        case "verify":
            token = operator_token(stack.name, os.environ)
            check_stack(stack, token, options.name, options.login)
        case "rollback":
            token = operator_token(stack.name, os.environ)
            roll_back(stack, token, given(options.decisions), person())
        case "restore":
            restore(stack, options.backup, person(), options.yes)
        case "logs":
            logs.of_real(stack, options.name, options.follow, lambda: operator_token(stack.name, os.environ))
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
    except BrokenPipeError:  # `| head` has seen enough
        sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - what is still to be flushed goes there
        return 0
    except Unwell:
        return 1
    except CommandFailed as failure:
        print(failures.with_remedy(failure), file=sys.stderr)
        return 1
    except SetupFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    except OSError as error:
        said = machine.unwritable(error)
        if said is None:
            raise
        print(said, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        if options.command != "logs":  # Ctrl-C is how one stops to follow
            again = "" if options.command == "demo" else " The same command goes on from here."
            print(f"Interrupted.{again}", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parent.parent)
    sys.exit(main())
