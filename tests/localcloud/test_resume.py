"""After the daemon's restart everything that ran is there again, at the same address."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from localcloud.cloud import Cloud, Settings, open_cloud
from localcloud.machines import cloudrun, postgres
from tests.localcloud.test_cloudrun import APP, DOCKERFILE, IMAGE, declared, get


async def close(cloud: Cloud) -> None:
    """What the daemon does at its end."""
    await cloudrun.settle(cloud)
    await cloud.machines.close()
    cloud.network.close()
    cloud.processes.close()
    cloud.store.close()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The checkout that the image's name stands for."""
    (tmp_path / "Dockerfile").write_text(DOCKERFILE)
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


async def test_services_and_databases_come_back_where_they_were(checkout: Path, prefix: str) -> None:
    home, uris = checkout / "home", []
    for start in range(2):
        run = Path(tempfile.mkdtemp(prefix="lc-"))
        cloud = open_cloud(Settings(home, prefix, run, images={IMAGE: str(checkout)}))
        if start == 0:
            await cloud.machines.boot("sql/db", "sql", {"address": f"{prefix}.16.3", "network": "vpc"})
            await cloud.machines.boot("sql/off", "sql", {"address": f"{prefix}.16.4", "network": "vpc"})
            await cloud.machines.power_off("sql/off")
            await postgres.create_database(cloud, "sql/db", "ledger")
            uris.append((await cloudrun.deploy(cloud, "api", declared()))["uri"])
            # A rollout that the daemon's end interrupts: the old revision must not come back.
            await cloudrun.deploy(cloud, "api", declared(env={"WORD": "new"}))
        else:
            await cloudrun.resume(cloud)
            await cloud.machines.resume()
        assert cloud.machines.status("sql/off") == "STOPPED"
        assert (await get(uris[0]))["env"]["WORD"] == "new"
        await (await postgres.connect(cloud, "sql/db", "ledger")).close()
        expected = 1 if start else 2
        assert len(cloud.machines.names("run")) == expected
        await close(cloud)
        assert not run.exists()  # noqa: ASYNC240
