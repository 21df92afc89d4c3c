"""`python -m broker.service serve`, `migrate` and `openapi`."""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

from broker.errors import ConfigurationError
from broker.service import logs

#: exit codes: 2 settings are wrong, 3 the database is away or the service couldn't start (uvicorn's own)
EXIT_SETTINGS, EXIT_DATABASE, EXIT_STARTUP = 2, 3, 3


def main(arguments: list[str] | None = None) -> int:
    """Run one of the commands; the result is the process's exit code."""
    parser = argparse.ArgumentParser(prog="python -m broker.service", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("serve", help="serve HTTP on HOST and PORT, or on UNIX_SOCKET")
    migrate = commands.add_parser("migrate", help="bring the database to the newest schema")
    migrate.add_argument("--revision", default="head", help="instead of the newest; base empties it")
    migrate.add_argument("--wait", type=float, default=60.0, help="seconds to wait for the database")
    commands.add_parser("openapi", help="print the OpenAPI document; needs no settings")
    chosen = parser.parse_args(arguments)
    if chosen.command == "openapi":
        return _openapi()
    try:
        return _serve() if chosen.command == "serve" else _migrate(chosen.revision, chosen.wait)
    except ConfigurationError as wrong:
        sys.stderr.write("settings are wrong:\n  " + wrong.message.replace("; ", "\n  ") + "\n")
        return EXIT_SETTINGS


def _serve() -> int:
    from broker.service.settings import Settings

    settings = Settings.from_environment()
    logs.configure(settings.service.log_level)
    import uvicorn

    from broker.service.app import create_app

    app = create_app(settings)

    class Server(uvicorn.Server):
        """Ends streams first: they would last as long as a shutdown may take, and then be cut off."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            for connection in getattr(app.state, "connections", {}).values():
                connection.end_streams()
            users = getattr(app.state, "user_connections", None)
            if users is not None:
                users.end_streams()
            app.state.dashboard.close()
            await super().shutdown(sockets)

    # uvicorn raises the signal again once it has ended in good order, and without a handler that is
    # a death by signal; before it has begun, there is nothing to end.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    service = settings.service
    server = Server(
        uvicorn.Config(
            app,
            host=service.host,
            port=service.port,
            uds=service.unix_socket,
            log_config=None,
            access_log=False,
            server_header=False,
            # Cloud Run ends an instance 10 s after SIGTERM: requests get 4 of them, the hand-over the rest.
            timeout_graceful_shutdown=4,
            # The platform's front end names the client; nothing here trusts the header for a decision.
            proxy_headers=False,
        )
    )
    try:
        server.run()
    finally:
        if service.unix_socket:
            Path(service.unix_socket).unlink(missing_ok=True)
        _leave(0 if server.started else EXIT_STARTUP)
    return 0 if server.started else EXIT_STARTUP


def _openapi() -> int:
    from broker.service.app import api

    sys.stdout.write(json.dumps(api().openapi(), indent=2) + "\n")
    return 0


def _leave(code: int, seconds: float = 1.0) -> None:
    """Ends the process if threads that wait for somebody, such as a droplet, would hold it up at its end.

    They may end as a killed process's do, and Cloud Run kills 10 s after SIGTERM.
    """
    until = time.monotonic() + seconds
    for thread in threading.enumerate():
        # A pass goes on in a thread of its own, and can't once the interpreter is ending.
        if thread is not threading.main_thread() and (not thread.daemon or thread.name == "fleet"):
            thread.join(max(0.0, until - time.monotonic()))
            if thread.is_alive():
                logging.shutdown()
                sys.stdout.flush()
                os._exit(code)


def _migrate(revision: str, wait: float) -> int:
    from pydantic import SecretStr

    from broker.service.database import make_engine
    from broker.service.migrate import DatabaseAway, migrate
    from broker.service.settings import check_database_url

    url = check_database_url(SecretStr(os.environ.get("DATABASE_URL", "")))
    engine = make_engine(url, statement_seconds=0)  # a migration takes as long as it takes
    try:
        migrate(engine, revision, wait)
    except DatabaseAway as away:
        sys.stderr.write(f"{away}\n")
        return EXIT_DATABASE
    finally:
        engine.dispose()
    return 0


if __name__ == "__main__":
    sys.exit(main())
