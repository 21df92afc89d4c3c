"""Cloud SQL and Cloud Run: refusals first, then a real server behind each."""

from __future__ import annotations

import os
import tempfile
import urllib.error
import urllib.request
from asyncio import to_thread
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from localcloud.cloud import Cloud, CloudError, Settings, open_cloud
from localcloud.machines import postgres
from localcloud.providers.gcp.base import (
    ACCOUNT,
    CONFIG,
    CONNECTION,
    CONNECTOR,
    GLOBAL_ADDRESS,
    NETWORK,
    RUN_JOB,
    RUN_SERVICE,
    SQL_INSTANCE,
    SUBNETWORK,
)
from localcloud.providers.gcp.grants import RunServiceGrant
from localcloud.providers.gcp.sql import DATABASE, USER
from localcloud.providers.resource import PartlyCreated
from tests.providers.conftest import Declared, enable_apis, refusals

PREFIX = f"127.{70 + int(os.environ.get('PYTEST_XDIST_WORKER', 'gw0').removeprefix('gw'))}"
NET = "projects/local/global/networks/net"
IMAGE = "us-west1-docker.pkg.dev/local/ibkr/api:checkout"
EMAIL = "api@local.iam.gserviceaccount.com"
DOCKERFILE = 'FROM python\nWORKDIR /app\nENTRYPOINT ["python", "app.py"]\n'
APP = """
import http.server, os, socketserver, sys
if sys.argv[1:]:
    print("migrated"); sys.exit(int(sys.argv[1]))
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(os.environ["GREETING"].encode())
    def address_string(self):
        return "front"
class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
Server(os.environ["UNIX_SOCKET"], Answer).serve_forever()
"""


def sql(**changes: Any) -> dict[str, Any]:
    """A small private instance."""
    private = {"ipv4Enabled": False, "privateNetwork": NET}
    settings = {"tier": "db-f1-micro", "edition": "ENTERPRISE", "ipConfiguration": private}
    wanted = {"name": "db-1", "databaseVersion": "POSTGRES_16", "settings": settings, "region": "us-west1"}
    return {**wanted, **changes}


def service(**changes: Any) -> dict[str, Any]:
    """A service with one variable and a startup probe."""
    container: dict[str, Any] = {
        "image": IMAGE,
        "envs": [{"name": "GREETING", "value": "hello"}],
        "startupProbe": {"httpGet": {"path": "/"}, "periodSeconds": 1, "failureThreshold": 20},
    }
    template = {"containers": [{**container, **changes.pop("container", {})}], **changes.pop("template", {})}
    return {"name": "api", "location": "us-west1", "template": template, **changes}


def job(**changes: Any) -> dict[str, Any]:
    """A job that exits with its argument."""
    container = {"image": IMAGE, "args": ["0"], **changes.pop("container", {})}
    template = {"template": {"containers": [container], "maxRetries": 0}}
    return {"name": "migrate", "location": "us-west1", "template": template, **changes}


async def peered(declared: Declared, prefix: str) -> Declared:
    """A network that Google's services have addresses in."""
    await declared(NETWORK, name="net", autoCreateSubnetworks=False)
    reserved = {"name": "services", "purpose": "VPC_PEERING", "addressType": "INTERNAL", "network": NET}
    await declared(GLOBAL_ADDRESS, **reserved, address=f"{prefix}.16.0", prefixLength=20)
    peering = {"network": NET, "service": "servicenetworking.googleapis.com"}
    await declared(CONNECTION, **peering, reservedPeeringRanges=["services"])
    return declared


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Declared]:
    """Declares into a cloud that really starts what is declared; its image answers with its GREETING."""
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (checkout / "Dockerfile").write_text(DOCKERFILE)
    (checkout / "app.py").write_text(APP)
    with tempfile.TemporaryDirectory(prefix="lc-", ignore_cleanup_errors=True) as run:
        cloud = open_cloud(Settings(tmp_path / "home", PREFIX, Path(run), images={IMAGE: str(checkout)}))
        cloud.extensions[CONFIG] = {"project": "local", "region": "us-west1", "zone": "us-west1-b"}
        enable_apis(cloud)
        yield Declared(cloud)
        await close(cloud)


async def close(cloud: Cloud) -> None:
    """Stop everything."""
    await cloud.machines.close()
    cloud.network.close()
    cloud.processes.close()
    cloud.store.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"databaseVersion": "POSTGRES_99"}, "POSTGRES_99 is not a valid one"),
        ({"name": "Db"}, "Invalid instance name (Db)"),
        ({"settings": {"tier": "db-huge"}}, "Invalid Tier (db-huge)"),
        ({"settings": {"tier": "db-f1-micro"}}, "Invalid Tier (db-f1-micro) for (ENTERPRISE_PLUS) Edition"),
        (
            {
                "databaseVersion": "POSTGRES_15",
                "settings": {"tier": "db-f1-micro", "ipConfiguration": {"ipv4Enabled": False}},
            },
            "At least one of Public IP, Private IP or PSC",
        ),
    ],
)
async def test_what_cloud_sql_would_refuse_is_refused(
    declared: Declared, change: dict[str, Any], words: str
) -> None:
    await peered(declared, "127.57")
    with pytest.raises(CloudError) as refused:
        await declared(SQL_INSTANCE, **sql(**change))
    assert refused.value.status == 400
    assert words in refused.value.message


async def test_a_private_address_needs_the_peering(declared: Declared) -> None:
    await declared(NETWORK, name="net", autoCreateSubnetworks=False)
    with pytest.raises(CloudError, match="NETWORK_NOT_PEERED"):
        await declared(SQL_INSTANCE, **sql())


async def test_a_public_instance_and_another_engine_are_not_built(declared: Declared) -> None:
    await peered(declared, "127.57")
    with pytest.raises(CloudError, match="private addresses only") as refused:
        await declared(SQL_INSTANCE, **sql(settings={"tier": "db-f1-micro", "edition": "ENTERPRISE"}))
    assert refused.value.status == 501
    assert "databaseVersion" in list(refusals(declared, SQL_INSTANCE, {"databaseVersion": "MYSQL_8_0"}))


async def test_an_instance_is_protected_keeps_its_name_and_holds_the_peering(declared: Declared) -> None:
    await peered(declared, "127.57")
    made = await declared(SQL_INSTANCE, **sql())
    assert made.outputs["privateIpAddress"] == "127.57.16.2"
    assert made.outputs["connectionName"] == "local:us-west1:db-1"
    handler = declared.handler(SQL_INSTANCE)
    with pytest.raises(CloudError, match="deletion_protection is set to true"):
        await handler.delete("db-1")
    with pytest.raises(CloudError, match="can't be downgraded"):
        await handler.update("db-1", sql(databaseVersion="POSTGRES_9_6"))
    await handler.update("db-1", sql(deletionProtection=False, databaseVersion="POSTGRES_17"))
    connection = declared.provider.cloud.store.all(CONNECTION)[0].id
    with pytest.raises(CloudError, match="Producer services"):
        await declared.handler(CONNECTION).delete(connection)
    await handler.delete("db-1")
    await declared.handler(CONNECTION).delete(connection)
    assert not declared.provider.cloud.store.all(SQL_INSTANCE)
    await declared(
        CONNECTION,
        network=NET,
        service="servicenetworking.googleapis.com",
        reservedPeeringRanges=["services"],
    )
    with pytest.raises(CloudError, match="until one week from the deletion date") as refused:
        await declared(SQL_INSTANCE, **sql())
    assert refused.value.status == 409
    await declared(SQL_INSTANCE, **sql(name="db-2"))


async def test_a_database_needs_its_instance(declared: Declared) -> None:
    for token in (DATABASE, USER):
        with pytest.raises(CloudError, match="instance does not exist") as refused:
            await declared(token, name="app", instance="none")
        assert refused.value.status == 404


async def test_databases_and_users_are_those_of_a_real_server(running: Declared) -> None:
    await peered(running, PREFIX)
    await running(SQL_INSTANCE, **sql(deletionProtection=False))
    database = await running(DATABASE, name="app", instance="db-1")
    user = await running(USER, name="app", instance="db-1", password='it\'s "odd"')
    assert database.outputs["charset"] == "UTF8"
    assert user.id == "app//db-1"

    cloud = running.provider.cloud
    folder = postgres.socket_path(postgres.MachineHost(cloud, "sql/db-1", "sql", "")).parent

    async def log_in(password: str) -> None:
        login = {"host": str(folder), "user": "app", "password": password, "dbname": "app"}
        async with await psycopg.AsyncConnection.connect(**login) as session:
            await session.execute("SELECT 1")

    await log_in('it\'s "odd"')
    with pytest.raises(CloudError, match="already exists"):
        await running(DATABASE, name="app", instance="db-1")
    await running.handler(USER).update(user.id, {"name": "app", "instance": "db-1", "password": "new"})
    await log_in("new")
    with pytest.raises(psycopg.OperationalError):
        await log_in('it\'s "odd"')
    await cloud.machines.delete("sql/db-1")
    assert await running.handler(SQL_INSTANCE).read("db-1") is None
    assert not cloud.store.all(USER), "what lived in the instance is gone with it"


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (service(location="us-west9"), "Permission denied on 'locations/us-west9'"),
        (service(name="Api"), "must be 49 characters or fewer"),
        (service(template={"serviceAccount": "no@local.iam.gserviceaccount.com"}), "Service account no@"),
        (
            service(template={"vpcAccess": {"connector": "none"}}),
            "VPC connector projects/local/locations/us-w",
        ),
        (
            service(template={"scaling": {"minInstanceCount": 2, "maxInstanceCount": 1}}),
            "must not be more than",
        ),
        (service(template={"timeout": "3601s"}), "timeout must be at most 3600s"),
        (service(template={"maxInstanceRequestConcurrency": 1001}), "between 0 and 1000"),
        (
            service(container={"envs": [{"name": "PORT", "value": "1"}]}),
            "reserved env names were provided: PORT",
        ),
        (
            service(container={"envs": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
            "provided more than once: A",
        ),
        (
            service(container={"resources": {"limits": {"cpu": "0.5"}, "cpuIdle": False}}),
            "Total cpu < 1 is not supported",
        ),
        (service(container={"image": "nobody/knows:it"}), "Image 'nobody/knows:it' not found"),
    ],
)
async def test_what_cloud_run_would_refuse_is_refused(
    running: Declared, wanted: dict[str, Any], words: str
) -> None:
    with pytest.raises(CloudError) as refused:
        await running(RUN_SERVICE, **wanted)
    assert words in refused.value.message
    assert not running.provider.cloud.store.all(RUN_SERVICE)


async def test_a_service_answers_when_it_is_made_and_changes_with_its_declaration(running: Declared) -> None:
    prefix = PREFIX
    await running(ACCOUNT, accountId="api")
    await running(NETWORK, name="net", autoCreateSubnetworks=False)
    await running(SUBNETWORK, name="run", network=NET, ipCidrRange=f"{prefix}.1.0/28")
    connector = await running(CONNECTOR, name="run", subnet={"name": "run"})
    workload = {"serviceAccount": EMAIL, "vpcAccess": {"connector": connector.id, "egress": "ALL_TRAFFIC"}}
    made = await running(RUN_SERVICE, **service(template=workload))
    grant = {"name": "api", "location": "us-west1", "role": "roles/run.invoker", "member": "allUsers"}

    assert await to_thread(get, made.outputs["uri"]) == (403, ""), "nobody may call it yet"
    await running(RunServiceGrant.token, **grant)
    assert await to_thread(get, made.outputs["uri"]) == (200, "hello")

    handler = running.handler(RUN_SERVICE)
    found = await handler.read(made.id)
    assert found is not None
    assert found.outputs == made.outputs, "a refresh right after `up` must find no drift"
    other = {"envs": [{"name": "GREETING", "value": "good day"}]}
    changed = await handler.update(made.id, service(template=workload, container=other))
    assert changed.outputs["uri"] == made.outputs["uri"]
    assert changed.outputs["latestReadyRevision"] != made.outputs["latestReadyRevision"]
    assert await to_thread(get, made.outputs["uri"]) == (200, "good day")

    with pytest.raises(CloudError, match="deletion_protection=false"):
        await handler.delete(made.id)
    await handler.update(made.id, service(template=workload, container=other, deletionProtection=False))
    await handler.delete(made.id)
    assert not running.provider.cloud.machines.names("run")


def get(url: str) -> tuple[int, str]:
    """Status and body; the body of a refusal is Google's and of no interest."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310 - the test's own service
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


async def test_a_service_that_does_not_come_up_fails_and_leaves_nothing(running: Declared) -> None:
    with pytest.raises(CloudError, match="is not ready and cannot serve traffic"):
        await running(RUN_SERVICE, **service(container={"args": ["1"]}))
    cloud = running.provider.cloud
    assert not cloud.store.all(RUN_SERVICE)
    assert not cloud.machines.names("run")


async def test_a_job_runs_when_its_token_changes(running: Declared) -> None:
    handler = running.handler(RUN_JOB)
    made = await running(RUN_JOB, **job())
    assert made.outputs["executionCount"] == 0, "declaring a job doesn't run it"
    ran = await handler.update(made.id, job(startExecutionToken="1"))
    assert ran.outputs["executionCount"] == 1
    same = await handler.update(made.id, job(startExecutionToken="1", labels={"a": "b"}))
    assert same.outputs["executionCount"] == 1


async def test_a_job_that_fails_exists_all_the_same(running: Declared) -> None:
    with pytest.raises(PartlyCreated, match="exit status 3") as failed:
        await running(RUN_JOB, **job(startExecutionToken="1", container={"args": ["3"]}))
    assert "migrated" in failed.value.message, "its last lines say why"
    assert running.provider.cloud.store.get(RUN_JOB, failed.value.resource.id)
