"""The local cloud's command line: python -m localcloud COMMAND."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import Any

from localcloud.control import Daemon, DaemonError
from localcloud.daemon import DEFAULT_NETWORK

NOT_RUNNING = 3  # exit status of `status`, as service managers have it


def main(arguments: list[str] | None = None) -> int:
    """Run a command; the exit status. What went wrong is one line on stderr."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(Daemon(options.home), options)
    except DaemonError as error:
        print(f"localcloud: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"localcloud: {error.strerror}: {error.filename or ''}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        return 0  # `| head` has seen enough
    return status


def _start(daemon: Daemon, options: argparse.Namespace) -> int:
    began = daemon.start(options.network, dict(options.image or []))
    about = daemon.about()
    word = "started" if began else "already running"
    print(f"local cloud {word}: network {about['network']}.0.0/16, APIs at {about['api_url']}")
    print(f"log: {daemon.log}")
    return 0


def _serve(_: Daemon, options: argparse.Namespace) -> int:
    from localcloud.daemon import serve

    ready = os.fdopen(options.ready_fd, "w") if options.ready_fd is not None else None
    return serve(options.home.resolve(), options.network, dict(options.image or []), ready)


def _stop(daemon: Daemon, _: argparse.Namespace) -> int:
    print("local cloud stopped" if daemon.stop() else "the local cloud was not running")
    return 0


def _status(daemon: Daemon, options: argparse.Namespace) -> int:
    if not daemon.running():
        print(json.dumps({"running": False}) if options.json else "the local cloud is not running")
        return NOT_RUNNING
    status = daemon.call("status")
    if options.json:
        print(json.dumps({"running": True, **daemon.about(), **status}, indent=2))
        return 0
    exchange = "running" if status["exchange"]["running"] else "DOWN"
    print(f"running: pid {status['pid']}, network {status['network']}.0.0/16, exchange {exchange}")
    _print_machines(status["machines"])
    return 0


def _machines(daemon: Daemon, options: argparse.Namespace) -> int:
    machines = daemon.call("machines")
    if options.json:
        print(json.dumps(machines, indent=2))
    else:
        _print_machines(machines)
    return 0


def _env(daemon: Daemon, options: argparse.Namespace) -> int:
    settings = daemon.call("env")
    providers = daemon.about()["providers"]
    settings["PULUMI_DEBUG_PROVIDERS"] = ",".join(f"{name}:{port}" for name, port in providers.items())
    if options.json:
        print(json.dumps(settings, indent=2))
    else:
        for name, value in settings.items():
            print(f"export {name}={shlex.quote(value)}")
    return 0


def _token(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.call("token", user=options.user, roles=options.role, seconds=options.ttl)
    print(answer["token"])
    return 0


def _tunnel(daemon: Daemon, options: argparse.Namespace) -> int:
    from localcloud.tunnel import listen

    host, _, port = options.listen.rpartition(":")
    asyncio.run(listen(daemon, options.name, options.port, (host or "127.0.0.1", int(port))))
    return 0


def _logs(daemon: Daemon, options: argparse.Namespace) -> int:
    with daemon.open("logs", name=options.name, follow=options.follow) as connection:
        for data in connection.stream():
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()
    return 0


def _delete_machine(daemon: Daemon, options: argparse.Namespace) -> int:
    print(f"deleted {daemon.call('delete_machine', name=options.name)['machine']}")
    return 0


def _reset_machine(daemon: Daemon, options: argparse.Namespace) -> int:
    print(f"reset {daemon.call('reset_machine', name=options.name)['machine']}")
    return 0


def _kill_unit(daemon: Daemon, options: argparse.Namespace) -> int:
    killed = daemon.call("kill_unit", name=options.name, unit=options.unit)
    print(f"killed {killed['unit']} of {killed['machine']}, process {killed['pid']}")
    return 0


def _why(daemon: Daemon, options: argparse.Namespace) -> int:
    answer = daemon.call("why", source=options.source, destination=options.destination, port=options.port)
    verb = "reaches" if answer["allowed"] else "does not reach"
    print(f"{answer['source']} {verb} {answer['destination']}:{options.port}: {answer['why']}")
    return 0 if answer["allowed"] else 1


def _user_add(daemon: Daemon, options: argparse.Namespace) -> int:
    # Alpaca's secrets have 40 characters.
    made = secrets.token_urlsafe(30 if options.kind == "alpaca" else 12)
    password = sys.stdin.readline().rstrip("\n") if options.password_stdin else made
    given = {"name": options.name, "mode": options.mode, "kind": options.kind}
    answer = daemon.call("user_add", password=password, **given)
    print(f"opened {', '.join(answer['accounts'])} for {answer['name']} ({answer['mode']})")
    if not options.password_stdin:
        print(f"password: {password}")
    return 0


def _print_machines(machines: list[dict[str, Any]]) -> None:
    for machine in machines:
        ports = ",".join(str(port) for port in machine["ports"])
        where = f"{machine['address']}:{ports}" if ports else machine["address"]
        print(f"  {machine['name']:<40} {machine['status']:<9} {where:<22} {machine['title']}".rstrip())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="localcloud", description=__doc__)
    default = Path(os.environ.get("LOCALCLOUD_HOME") or ".local/cloud")
    parser.add_argument("--home", type=Path, default=default, help=f"where it keeps its state ({default})")
    parser.add_argument(
        "--network", metavar="PREFIX", help=f"first two octets ({DEFAULT_NETWORK}; remembered)"
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, about: str) -> argparse.ArgumentParser:
        found = commands.add_parser(name, help=about, description=about)
        found.set_defaults(run=run)
        # Also after the command; SUPPRESS keeps what was given before it.
        found.add_argument("--home", type=Path, default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        found.add_argument("--network", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
        return found

    for name, run, about in (
        ("start", _start, "start the daemon and wait until it is ready"),
        ("serve", _serve, "run the daemon in the foreground"),
    ):
        found = command(name, run, about)
        found.add_argument("--image", action="append", type=_image, metavar="NAME=DIR",
                           help="the checkout that a container image's name stands for")  # fmt: skip
    found.add_argument("--ready-fd", type=int, help=argparse.SUPPRESS)
    command("stop", _stop, "stop the daemon and everything it runs")
    for name, run, about in (
        ("status", _status, "what runs"),
        ("machines", _machines, "the machines and their addresses"),
        ("env", _env, "settings for clients of the local cloud's APIs, for `eval`"),
    ):
        command(name, run, about).add_argument("--json", action="store_true")
    found = command("token", _token, "a bearer token for the API service")
    found.add_argument("--user", default="demo")
    found.add_argument("--role", action="append", help="user, trader or operator (default: user and trader)")
    found.add_argument("--ttl", type=int, default=3600, help="seconds (3600)")
    found = command("tunnel", _tunnel, "reach a virtual machine's port, as through IAP")
    found.add_argument("name")
    found.add_argument("port", type=int)
    found.add_argument("--listen", default="127.0.0.1:4002", metavar="HOST:PORT")
    found = command("logs", _logs, "a machine's console; `daemon` and `exchange` have logs too")
    found.add_argument("name")
    found.add_argument("-f", "--follow", action="store_true")
    command("delete-machine", _delete_machine, "delete a machine behind Pulumi's back").add_argument("name")
    command("reset-machine", _reset_machine, "switch a machine off and on again").add_argument("name")
    found = command("kill-unit", _kill_unit, "kill the main process of a service on a machine")
    found.add_argument("name")
    found.add_argument("unit", help="ibeam.service, ibkr-gateway@paper.service ...")
    found = command("why", _why, "explain whether a connection is allowed")
    found.add_argument("source", help="a machine, `internet` or `iap`")
    found.add_argument("destination", help="a machine or an address")
    found.add_argument("port", type=int)
    users = command("user", None, "users of the paper exchange").add_subparsers(
        required=True, metavar="ACTION"
    )
    found = users.add_parser("add", help="open an account")
    found.set_defaults(run=_user_add)
    found.add_argument("name")
    found.add_argument("--mode", choices=("paper", "live"), default="paper")
    found.add_argument("--kind", choices=("margin", "cash", "alpaca"), default="margin",
                       help="alpaca: NAME is the API key id, the password its secret key")  # fmt: skip
    found.add_argument("--password-stdin", action="store_true", help="read the password from standard input")
    return parser


def _image(text: str) -> tuple[str, str]:
    name, separator, folder = text.rpartition("=")
    if not separator or not (Path(folder) / "Dockerfile").is_file():
        raise argparse.ArgumentTypeError(f"{text}: give NAME=DIR, where DIR holds a Dockerfile")
    return name, str(Path(folder).resolve())


if __name__ == "__main__":
    sys.exit(main())
