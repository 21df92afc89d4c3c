"""The providers under the real engine, over gRPC: programs as a stack's author would write them.

Machines aren't started (tests/e2e does); everything else is as in `make up`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pulumi
import pulumi_command as command
import pulumi_digitalocean as digitalocean
import pulumi_gcp as gcp
import pytest
from pulumi import automation

from components.wrapping_key import KmsWrappingKey, KmsWrappingKeyArgs
from localcloud.cloud import Cloud
from localcloud.digitalocean import DROPLET
from localcloud.providers.gcp.base import FIREWALL, NETWORK
from localcloud.providers.server import serve_providers, stop_providers
from tests.providers.conftest import RecordedMachines
from tools import pulumi_cli

CLI = pulumi_cli.locate()
# Importing a provider's SDK warns of every deprecated resource in it.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
PASSWORD = "hunter2-hunter2"


class Engine:
    """One stack, driven from outside of the event loop that serves its providers."""

    def __init__(self, folder: Path, ports: dict[str, int]) -> None:
        assert CLI is not None, "there is no Pulumi CLI: `make setup` fetches it"
        self.folder = folder
        self.environment = {
            "PATH": f"{CLI}:{os.environ['PATH']}",
            "PULUMI_BACKEND_URL": f"file://{folder}",
            "PULUMI_HOME": str(folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "x",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DEBUG_PROVIDERS": ",".join(f"{name}:{port}" for name, port in ports.items()),
        }
        self.said: list[str] = []

    async def __call__(
        self, operation: str, program: Callable[[], None], project: str = "local", **options: Any
    ) -> Any:
        return await asyncio.to_thread(self._run, operation, program, project, options)

    def _run(self, operation: str, program: Callable[[], None], project: str, options: dict[str, Any]) -> Any:
        workspace = automation.LocalWorkspaceOptions(
            env_vars=self.environment, pulumi_command=automation.PulumiCommand(root=str(self._root()))
        )
        stack = automation.create_or_select_stack("test", "program", program=program, opts=workspace)
        stack.set_all_config(
            {
                "gcp:project": automation.ConfigValue(project),
                "gcp:region": automation.ConfigValue("us-west1"),
                "gcp:zone": automation.ConfigValue("us-west1-b"),
            }
        )
        return getattr(stack, operation)(on_output=self.said.append, **options)

    def _root(self) -> Path:
        """The automation API wants the CLI in a `bin` folder."""
        root = self.folder / "cli"
        if not (root / "bin").exists():
            root.mkdir()
            (root / "bin").symlink_to(CLI)
        return root

    def state(self) -> str:
        """The state as it lies on the disk, secrets encrypted."""
        return (self.folder / ".pulumi" / "stacks" / "program" / "test.json").read_text()


@pytest.fixture
async def engine(cloud: Cloud, tmp_path: Path) -> AsyncIterator[Engine]:
    folder = tmp_path / "state"
    folder.mkdir()
    ports = await serve_providers(cloud)
    yield Engine(folder, ports)
    await stop_providers(cloud)


def a_stack(user_data: str = "#cloud-config", priority: int = 900) -> Callable[[], None]:
    """A VM in a network, a secret, a command and a droplet."""

    def program() -> None:
        network = gcp.compute.Network("net", auto_create_subnetworks=False)
        subnet = gcp.compute.Subnetwork("subnet", network=network.id, ip_cidr_range="127.57.0.0/24")
        gcp.compute.Firewall(
            "rule",
            network=network.self_link,
            priority=priority,
            source_ranges=["127.57.1.0/28"],
            allows=[gcp.compute.FirewallAllowArgs(protocol="tcp", ports=["4002"])],
        )
        secret = gcp.secretmanager.Secret(
            "secret",
            secret_id="password",
            replication=gcp.secretmanager.SecretReplicationArgs(
                auto=gcp.secretmanager.SecretReplicationAutoArgs()
            ),
        )
        version = gcp.secretmanager.SecretVersion("version", secret=secret.id, secret_data=PASSWORD)
        vm = gcp.compute.Instance(
            "vm",
            name="gateway",
            machine_type="e2-small",
            boot_disk=gcp.compute.InstanceBootDiskArgs(
                initialize_params=gcp.compute.InstanceBootDiskInitializeParamsArgs(
                    image="debian-cloud/debian-12"
                )
            ),
            network_interfaces=[gcp.compute.InstanceNetworkInterfaceArgs(subnetwork=subnet.id)],
            metadata={"user-data": user_data, "other": "1"},
            opts=pulumi.ResourceOptions(
                replace_on_changes=['metadata["user-data"]'], delete_before_replace=True
            ),
        )
        ran = command.local.Command(
            "ran", create="echo $PASSWORD", environment={"PASSWORD": pulumi.Output.secret(PASSWORD)}
        )
        digitalocean.Droplet(
            "droplet",
            image="ubuntu-24-04-x64",
            size="s-1vcpu-1gb",
            region="nyc1",
            user_data=pulumi.Output.secret(f"password: {PASSWORD}"),
        )
        pulumi.export("address", vm.network_interfaces[0].network_ip)
        pulumi.export("version", version.version)
        pulumi.export("printed", ran.stdout)

    return program


async def test_a_stack_lives_its_life(engine: Engine, cloud: Cloud, machines: RecordedMachines) -> None:
    program = a_stack()
    preview = await engine("preview", program)
    assert preview.change_summary == {"create": 9}
    assert not cloud.store.all(NETWORK), "a preview makes nothing"

    up = await engine("up", program)
    assert up.outputs["address"].value == "127.57.0.2"
    assert up.outputs["printed"].value == PASSWORD
    assert up.outputs["printed"].secret, "what a command with a secret prints is secret"
    await engine("up", program, expect_no_changes=True)
    await engine("refresh", program, expect_no_changes=True)
    assert PASSWORD not in engine.state()
    assert not any(PASSWORD in line for line in engine.said)

    changed = await engine("up", a_stack(priority=901))
    assert changed.summary.resource_changes == {"same": 8, "update": 1}
    assert cloud.store.all(FIREWALL)[0].inputs["priority"] == 901

    boots = len(machines.boots)
    replaced = await engine("up", a_stack(user_data="#cloud-config new", priority=901))
    assert replaced.summary.resource_changes == {"same": 8, "replace": 1}
    assert machines.specs["gce/gateway"]["user_data"] == "#cloud-config new"
    assert len(machines.boots) == boots + 1

    await engine("destroy", program)
    assert not [kind for kind, found in cloud.store._resources.items() if found]
    assert not machines.specs


async def test_what_somebody_deleted_is_found_by_a_refresh_and_made_again(
    engine: Engine, cloud: Cloud, machines: RecordedMachines
) -> None:
    program = a_stack()
    await engine("up", program)
    droplet = cloud.store.all(DROPLET)[0].id
    await machines.delete("gce/gateway")
    await machines.delete(f"droplet/{droplet}")
    found = await engine("refresh", program)
    assert found.summary.resource_changes == {"same": 7, "delete": 2}
    again = await engine("up", program)
    assert again.summary.resource_changes == {"same": 7, "create": 2}
    assert machines.status("gce/gateway") == "RUNNING"


async def test_a_refused_input_is_named_before_anything_is_made(engine: Engine, cloud: Cloud) -> None:
    def program() -> None:
        gcp.compute.Firewall("rule", network="net", priority=-1, direction="IN", name="Rule")

    with pytest.raises(automation.CommandError) as refused:
        await engine("preview", program)
    said = str(refused.value)
    for broken in ("priority", "direction", "name", "allows", "denies"):
        assert broken in said, "all that is wrong with a resource is said at once"
    assert 'one of ["INGRESS", "EGRESS"], got IN' in said
    assert not cloud.store.all(FIREWALL)


async def test_a_refusal_at_up_has_the_real_apis_words_and_keeps_what_was_made(
    engine: Engine, cloud: Cloud
) -> None:
    def program(taken: bool) -> Callable[[], None]:
        def declare() -> None:
            first = gcp.compute.Network("first", name="net", auto_create_subnetworks=False)
            gcp.compute.Network(
                "second",
                name="net" if taken else "other",
                auto_create_subnetworks=False,
                opts=pulumi.ResourceOptions(depends_on=[first]),
            )

        return declare

    with pytest.raises(automation.CommandError) as refused:
        await engine("up", program(taken=True))
    net = "projects/local/global/networks/net"
    words = f"googleapi: Error 409: The resource '{net}' already exists, alreadyExists"
    assert words in str(refused.value)
    assert len(cloud.store.all(NETWORK)) == 1
    done = await engine("up", program(taken=False))
    assert done.summary.resource_changes == {"same": 2, "create": 1}


async def test_a_stack_of_another_project_is_refused(engine: Engine, cloud: Cloud) -> None:
    with pytest.raises(automation.CommandError, match="never stands in for a real one"):
        await engine("up", a_stack(), project="my-real-project")
    assert not cloud.store.all(NETWORK)


async def test_a_type_that_is_not_built_says_so(engine: Engine) -> None:
    def program() -> None:
        gcp.pubsub.Topic("topic")

    with pytest.raises(automation.CommandError, match="the local cloud doesn't have gcp:pubsub/topic:Topic"):
        await engine("preview", program)


async def test_functions_answer_and_unbuilt_ones_say_so(engine: Engine) -> None:
    def program() -> None:
        pulumi.export("number", gcp.organizations.get_project().number)
        pulumi.export("region", gcp.organizations.get_client_config().region)

    up = await engine("up", program)
    assert up.outputs["number"].value == "100000000001"
    assert up.outputs["region"].value == "us-west1"

    def unbuilt() -> None:
        gcp.compute.get_network(name="net")

    with pytest.raises(automation.CommandError, match="doesn't have the function gcp:compute/getNetwork"):
        await engine("up", unbuilt)


async def test_a_replacement_with_a_chosen_name_is_created_first(engine: Engine, cloud: Cloud) -> None:
    def program(description: str) -> Callable[[], None]:
        def declare() -> None:
            made = gcp.compute.Network("net", auto_create_subnetworks=False, description=description)
            pulumi.export("name", made.name)

        return declare

    first = await engine("up", program("one"))
    second = await engine("up", program("two"))
    assert second.summary.resource_changes == {"same": 1, "replace": 1}
    names = (first.outputs["name"].value, second.outputs["name"].value)
    assert names[0] != names[1]
    assert [found.outputs["name"] for found in cloud.store.all(NETWORK)] == [names[1]]


async def test_a_wrapping_key_can_be_made_again_after_a_destroy(engine: Engine, cloud: Cloud) -> None:
    """Google keeps the names of deleted key rings and keys for ever, so they must be new ones."""

    def unprotected(args: pulumi.ResourceTransformArgs) -> pulumi.ResourceTransformResult:
        opts = pulumi.ResourceOptions.merge(args.opts, pulumi.ResourceOptions(protect=False))
        return pulumi.ResourceTransformResult(args.props, opts)

    def program() -> None:
        key = KmsWrappingKey("fleet-key", KmsWrappingKeyArgs("us-west1", {}, {}))
        pulumi.export("key", key.key_id)

    def given_up() -> None:
        pulumi.runtime.register_resource_transform(unprotected)
        program()

    first = (await engine("up", program)).outputs["key"].value
    with pytest.raises(automation.CommandError, match="protected"):
        await engine("destroy", program)
    await engine("up", given_up)
    await engine("destroy", given_up)
    second = (await engine("up", program)).outputs["key"].value
    assert first.startswith("projects/local/locations/us-west1/keyRings/fleet-key-ring-")
    assert first.split("/")[5] != second.split("/")[5]


async def test_a_failed_command_fails_the_up_and_runs_again(engine: Engine, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    def program() -> None:
        command.local.Command("ran", create=f"test -e {flag} || (echo no flag >&2; exit 4)")

    with pytest.raises(automation.CommandError, match="exit status 4"):
        await engine("up", program)
    flag.touch()
    done = await engine("up", program)
    assert done.summary.resource_changes == {"same": 1, "create": 1}
