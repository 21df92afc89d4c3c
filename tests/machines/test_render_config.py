"""The gateway's render-config, run as it is, against a stand-in for the metadata server and Secret Manager.

The way back is read by another program: the paper gateway's own reader of Java properties.
"""

from __future__ import annotations

import asyncio
import stat
from pathlib import Path

import pytest

from broker.fleet.cloud_init import render
from localcloud.gateways.tws.ibc import parse_properties
from localcloud.machines.calls import GuestMachine
from localcloud.machines.cloudinit import CloudInit
from localcloud.machines.paths import MachinePaths
from localcloud.machines.runner import MachineRunner
from localcloud.machines.units import Units
from tests.fleet.values import GATEWAY, NASTY_PASSWORDS, PAPER
from tests.machines.google import GoogleStandIn
from tests.machines.laptop import LaptopHost

VERSION = PAPER["credentials_version"]


class Script:
    """render-config on a machine that has nothing but its user data's files."""

    def __init__(self, host: LaptopHost, google: GoogleStandIn) -> None:
        host.environment = google.environment
        self.host = host
        self._paths = MachinePaths(host.root, host.run)
        self._runner = MachineRunner({}, {})

    async def run(self, patience: float = 0) -> int:
        self._paths.prepare()
        init = CloudInit(self._paths, render("ib-gateway.yaml", GATEWAY), self.host.log)
        init.begin()
        init.write_files()
        units = Units(self._paths, self._runner, self.host.log)
        await self._runner.open(GuestMachine(self.host, self._paths, units, init))
        try:
            program = await self._runner.start(
                ["/opt/ibkr-gateway/render-config", "paper"],
                {"RENDER_CONFIG_PATIENCE": str(patience)},
                "/",
                "render-config",
            )
            return await program.wait()
        finally:
            await self._runner.close()

    @property
    def rendered(self) -> Path:
        return self.host.run / "ibkr-gateway" / "paper"

    @property
    def properties(self) -> dict[str, str]:
        return parse_properties((self.rendered / "config.ini").read_text("iso-8859-1"))


@pytest.fixture
def script(host: LaptopHost, google: GoogleStandIn) -> Script:
    return Script(host, google)


@pytest.mark.parametrize("password", [*NASTY_PASSWORDS, "\\u0041", "!x", "#x", "trailing\\", "\r\n\f"])
async def test_a_password_is_the_same_when_ibc_reads_it(
    script: Script, google: GoogleStandIn, password: str
) -> None:
    google.keep_login(VERSION, "user:=name", password)
    assert await script.run() == 0
    found = script.properties["IbPassword"].encode("utf-16", "surrogatepass").decode("utf-16")
    assert found == password
    assert script.properties["IbLoginId"] == "user:=name"


async def test_a_password_cannot_set_another_setting(script: Script, google: GoogleStandIn) -> None:
    google.keep_login(VERSION, "user", "x\nTradingMode=live\nReadOnlyApi=no")
    assert await script.run() == 0
    assert script.properties["TradingMode"] == "paper"


async def test_only_the_service_user_reads_what_it_wrote(script: Script, google: GoogleStandIn) -> None:
    google.keep_login(VERSION, "user", "secret-password")
    assert await script.run() == 0
    for name in ("config.ini", "jts.ini"):
        assert stat.S_IMODE((script.rendered / name).stat().st_mode) == 0o600
    assert stat.S_IMODE(script.rendered.stat().st_mode) == 0o700


async def test_nothing_of_the_login_is_said(script: Script, google: GoogleStandIn) -> None:
    google.keep_login(VERSION, "user-name", "secret-password")
    assert await script.run() == 0
    assert "wrote config.ini" in script.host.text
    assert "user-name" not in script.host.text
    assert "secret-password" not in script.host.text
    assert not any(
        "secret" in word for words in script.host.spawned for word in words if "projects/" not in word
    )


async def test_the_login_is_on_no_disk(script: Script, google: GoogleStandIn) -> None:
    google.keep_login(VERSION, "user", "secret-password")
    assert await script.run() == 0
    on_disk = [path for path in script.host.root.rglob("*") if path.is_file()]
    assert not any(b"secret-password" in path.read_bytes() for path in on_disk)


async def test_ibc_gets_the_settings_of_the_user_data(script: Script, google: GoogleStandIn) -> None:
    google.keep_login(VERSION, "user", "password")
    assert await script.run() == 0
    found = script.properties
    assert found["OverrideTwsApiPort"] == PAPER["local_api_port"]
    assert found["AutoRestartTime"] == "11:45 PM"
    assert found["AcceptNonBrokerageAccountWarning"] == "yes", "else the API of a paper account says 10141"
    assert found["ReloginAfterSecondFactorAuthenticationTimeout"] == "no", "each attempt is another push"
    assert "TimeZone=America/New_York" in (script.rendered / "jts.ini").read_text()


async def test_a_settings_file_that_the_gateway_has_is_left_alone(
    script: Script, google: GoogleStandIn
) -> None:
    google.keep_login(VERSION, "user", "password")
    own = script.host.root / "srv/ibkr-gateway/paper/jts.ini"
    own.parent.mkdir(parents=True)
    own.write_text("[Logon]\nmine=1\n")
    assert await script.run() == 0
    assert own.read_text() == "[Logon]\nmine=1\n"


async def test_a_missing_grant_is_said_and_no_login_is_tried(script: Script, google: GoogleStandIn) -> None:
    google.refusals = [(403, "Permission 'secretmanager.versions.access' denied")] * 5
    assert await script.run(patience=0) == 1
    assert "login failed" in script.host.text
    assert "403 Permission 'secretmanager.versions.access' denied" in script.host.text
    assert not (script.rendered / "config.ini").exists()


async def test_a_grant_that_takes_its_time_is_waited_for(script: Script, google: GoogleStandIn) -> None:
    google.keep_login(VERSION, "user", "password")
    google.refusals = [(403, "denied")]
    assert await script.run(patience=60) == 0
    said = f"login not possible: {VERSION} can't be read: 403 denied; asking again in 1 s"
    assert said in script.host.text


@pytest.mark.parametrize("payload", [b"not JSON: hunter2", b'{"username": "hunter2"}', b"[]"])
async def test_a_secret_of_another_shape_is_refused_unseen(
    script: Script, google: GoogleStandIn, payload: bytes
) -> None:
    google.secrets[VERSION] = payload
    assert await script.run() == 1
    assert "isn't JSON with username and password" in script.host.text
    assert "hunter2" not in script.host.text


async def test_a_login_of_an_earlier_start_does_not_stay_when_it_changed(
    script: Script, google: GoogleStandIn
) -> None:
    for password in ("first", "second"):
        google.keep_login(VERSION, "user", password)
        assert await script.run() == 0
        assert script.properties["IbPassword"] == password
    assert not await asyncio.to_thread(lambda: list(script.rendered.glob("*.part")))
