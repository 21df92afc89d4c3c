"""A Cloud SQL instance is a real PostgreSQL: roles, passwords, data over power-off, and the way to it."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import psycopg
import pytest

from localcloud.cloud import Cloud, CloudError
from localcloud.machines import postgres
from tests.localcloud.playground import Network, said

NAME = "sql/db"
PASSWORD = 'p\'w "%s"'


@pytest.fixture
async def instance(cloud: Cloud, network: Network) -> str:
    """A running instance with a database and a user."""
    network.declare("gcp:servicenetworking/connection:Connection", "peering", network="vpc")
    await cloud.machines.boot(NAME, "sql", {"address": f"{network.prefix}.16.3", "network": "vpc"})
    await postgres.create_user(cloud, NAME, "app", PASSWORD)
    await postgres.create_database(cloud, NAME, "ledger")
    return NAME


async def session(cloud: Cloud, user: str = "app", password: str = PASSWORD) -> psycopg.AsyncConnection:
    """A session of a user, by the socket behind the edge."""
    machine = cloud.machines.running(NAME)
    assert machine is not None
    folder = str(machine.host.run)
    return await psycopg.AsyncConnection.connect(host=folder, user=user, password=password, dbname="ledger")


async def test_a_user_works_in_its_database_and_the_data_survive_power_off(
    cloud: Cloud, instance: str
) -> None:
    async with await session(cloud) as own:
        await own.execute("CREATE TABLE orders (id int)")
        await own.execute("INSERT INTO orders VALUES (7)")
    await cloud.machines.power_off(instance)
    assert cloud.machines.status(instance) == "STOPPED"
    await cloud.machines.power_on(instance)
    async with await session(cloud) as own:
        assert await (await own.execute("SELECT id FROM orders")).fetchone() == (7,)


async def test_a_server_that_was_killed_comes_back_with_what_was_committed(
    cloud: Cloud, instance: str
) -> None:
    async with await session(cloud) as own:
        await own.execute("CREATE TABLE orders (id int)")
        await own.execute("INSERT INTO orders VALUES (7)")
    machine = cloud.machines.running(instance)
    assert machine is not None
    postmaster = int((machine.host.root / "data" / "postmaster.pid").read_text().split()[0])
    os.kill(postmaster, signal.SIGKILL)
    async with asyncio.timeout(60):
        while True:
            await asyncio.sleep(0.1)
            try:
                own = await session(cloud)
                break
            except psycopg.OperationalError:
                continue
    async with own:
        assert await (await own.execute("SELECT id FROM orders")).fetchone() == (7,)


async def test_a_wrong_password_is_refused_and_a_changed_one_counts(cloud: Cloud, instance: str) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        await session(cloud, password="guess")
    await postgres.set_password(cloud, instance, "app", "new")
    await (await session(cloud, password="new")).close()
    with pytest.raises(CloudError, match='role "nobody" does not exist'):
        await postgres.set_password(cloud, instance, "nobody", "x")


async def test_a_user_is_no_superuser_as_in_cloud_sql(cloud: Cloud, instance: str) -> None:
    async with await session(cloud) as own:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            await own.execute("COPY (SELECT 1) TO PROGRAM 'true'")


async def test_what_exists_is_refused_by_name_and_what_is_gone_can_be_dropped_again(
    cloud: Cloud, instance: str
) -> None:
    with pytest.raises(CloudError, match='database "ledger" already exists'):
        await postgres.create_database(cloud, instance, "ledger")
    async with await session(cloud):
        await postgres.drop_database(cloud, instance, "ledger")
    await postgres.drop_database(cloud, instance, "ledger")
    await postgres.drop_user(cloud, instance, "app")
    await postgres.drop_user(cloud, instance, "app")


async def test_its_log_holds_no_password(cloud: Cloud, instance: str) -> None:
    with pytest.raises(CloudError):
        await postgres.set_password(cloud, instance, "nobody", "tell-no-one")
    await postgres.create_user(cloud, instance, "app", "tell-no-one")
    logs = "".join(path.read_text() for path in cloud.settings.log_folder.iterdir())
    assert "tell-no-one" not in logs


async def test_a_killed_server_comes_back_with_what_was_committed(cloud: Cloud, instance: str) -> None:
    async with await session(cloud) as own:
        await own.execute("CREATE TABLE kept (id int)")
    for process in cloud.processes.of(instance):
        process.kill()
        await process.wait()
    await cloud.machines.power_off(instance)
    await cloud.machines.power_on(instance)
    async with await session(cloud) as own:
        await own.execute("SELECT * FROM kept")


async def test_only_its_network_reaches_it(cloud: Cloud, instance: str, network: Network) -> None:
    code = f"""
import psycopg
try:
    psycopg.connect(host="{network.prefix}.16.3", user="app", password={PASSWORD!r}, dbname="ledger").close()
    print("connected")
except psycopg.OperationalError as error:
    print("refused")
"""
    inside = network.vm("inside", f"{network.prefix}.1.6")
    await inside.spawn([sys.executable, "-c", code], log="client")
    await said(inside, "connected")
    outside = network.vm("outside", f"{network.prefix}.9.6", network="elsewhere")
    await outside.spawn([sys.executable, "-c", code], log="client")
    await said(outside, "refused")


async def test_a_stopped_instance_says_so(cloud: Cloud, instance: str) -> None:
    await cloud.machines.power_off(instance)
    with pytest.raises(CloudError, match="instance is not running"):
        await postgres.create_database(cloud, instance, "more")
