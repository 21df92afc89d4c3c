"""What the run-time fleet declares: its key, its schedule, what the service is told, the broker `ibeam`."""

from __future__ import annotations

import json
from typing import Any

import pulumi
import pytest

from broker.fleet.spec import gateway_token
from broker.service.fleet_settings import read_fleet_settings
from components.reconcile_schedule import cron
from localcloud.cron import parse as parse_cron
from stacks.fleet_service import deterministic_url
from tests.stacks.inventory import FLEET
from tests.stacks.plan import FOUNDATION_OUTPUTS, NUMBER, Plan, plan_of, settings_of

URL = f"https://ibkr-api-{NUMBER}.us-west1.run.app"


@pytest.fixture(scope="module")
def staging() -> Plan:
    """A stack in Google's cloud with a fleet and a service that isn't public."""
    return plan_of(settings_of("staging", FLEET))


@pytest.fixture(scope="module")
def local() -> Plan:
    return plan_of(settings_of("local"))


def service(plan: Plan) -> dict[str, Any]:
    """The service's template."""
    found: dict[str, Any] = plan.one("cloudrunv2/service:Service").inputs["template"]
    return found


def environment(plan: Plan) -> dict[str, str]:
    """The service's variables; of a secret one, a value of its own form."""
    found = {}
    for variable in service(plan)["containers"][0]["envs"]:
        found[variable["name"]] = variable.get("value") or f"secret-{variable['name']}"
    return found


@pytest.mark.parametrize("stack", ["staging", "local"])
def test_the_service_understands_what_it_is_told(stack: str, request: pytest.FixtureRequest) -> None:
    told = read_fleet_settings(environment(request.getfixturevalue(stack)))
    assert told is not None
    assert told.stack == stack
    assert told.fleet_client_address == "203.0.113.7", "the NAT's address, which droplets admit"
    assert told.fleet_accounts_per_user == 3
    assert told.droplets.demo_size == "s-1vcpu-512mb-10gb"


def test_droplets_enrol_where_cloud_run_will_serve_or_at_what_stands_before_it(staging: Plan) -> None:
    assert environment(staging)["FLEET_SERVICE_URL"] == "https://api.trader.test"
    changes = {"ibkr:fleet.serviceUrl": None, "ibkr:api.public": True}
    public = plan_of(settings_of("staging", {**FLEET, **changes}))
    assert environment(public)["FLEET_SERVICE_URL"] == URL
    assert deterministic_url("ibkr-api", "123456789", "us-west1") == URL


def test_googles_scheduler_is_the_services_default_and_the_local_one_is_told(
    staging: Plan, local: Plan
) -> None:
    assert "SCHEDULER_ISSUER" not in environment(staging)
    assert environment(local)["SCHEDULER_ISSUER"].startswith("http://127.20.255.1")


def test_passes_are_asked_for_with_a_token_of_an_account_that_can_do_nothing_else(staging: Plan) -> None:
    job = staging.one("cloudscheduler/job:Job")
    target = job.inputs["httpTarget"]
    assert target["uri"] == f"{URL}/api/v1/fleet/reconcile"
    email = target["oidcToken"]["serviceAccountEmail"]
    assert email.startswith("ibkr-scheduler@")
    assert target["oidcToken"]["audience"] == environment(staging)["SCHEDULER_AUDIENCE"]
    assert environment(staging)["SCHEDULER_EMAIL"] == email
    granted = [
        found.inputs["role"]
        for found in staging.resources
        if found.inputs.get("member") == f"serviceAccount:{email}"
    ]
    assert granted == ["roles/run.invoker"], "on the service, since that isn't public"
    assert "ibkr-reconcile-invoker" in job.waits_for


def test_on_a_public_service_the_scheduler_needs_no_grant(local: Plan) -> None:
    members = json.dumps([found.inputs.get("member") for found in local.resources])
    assert "ibkr-scheduler" not in members
    assert "ibkr-api-service" in local.one("cloudscheduler/job:Job").waits_for


@pytest.mark.parametrize("minutes", range(1, 31))
def test_every_interval_is_a_schedule(minutes: int) -> None:
    assert len(parse_cron(cron(minutes)).minutes) == -(-60 // minutes)


def test_the_fleet_keeps_an_instance_awake_and_lets_others_come() -> None:
    overrides = {**FLEET, "ibkr:brokerType": "simulated", "ibkr:gateway.enabled": False}
    template = service(plan_of(settings_of("staging", overrides)))
    assert template["scaling"] == {"minInstanceCount": 1, "maxInstanceCount": 3}
    assert template["containers"][0]["resources"]["cpuIdle"] is False, "passes run between requests"


def test_the_wrapping_key_belongs_to_the_foundation_and_is_never_deleted_unasked() -> None:
    plan = plan_of(settings_of("foundation-staging", {"ibkr:fleet.enabled": True}))
    key, ring = plan.one("CryptoKey", "fleet"), plan.one("KeyRing", "fleet")
    assert key.options["protect"]
    assert ring.options["protect"]
    assert "name" not in key.inputs, "a ring's and a key's name is never free again"
    assert "name" not in ring.inputs
    assert key.inputs["rotationPeriod"] == "7776000s"
    place = "projects/ibkr/locations/us-west1/keyRings"
    assert plan.outputs["fleet_key"] == f"{place}/{ring.name}/cryptoKeys/{key.name}"
    roles = {found.inputs["role"] for found in plan.of("CryptoKeyIAMMember") if "fleet" in found.name}
    assert roles == {"roles/cloudkms.admin"}, "who deploys grants the key's use, and can't use it"


def test_the_service_alone_uses_the_wrapping_key(staging: Plan) -> None:
    grants = {(found.inputs["role"], found.inputs["member"]) for found in staging.of("CryptoKeyIAMMember")}
    api = "serviceAccount:ibkr-api@ibkr.iam.gserviceaccount.com"
    assert grants == {
        ("roles/cloudkms.cryptoKeyEncrypterDecrypter", api),
        ("roles/cloudkms.viewer", api),
    }
    waits_for = staging.one("cloudrunv2/service:Service").waits_for
    assert {"ibkr-fleet-key-api-use", "ibkr-fleet-key-api-view"} <= waits_for
    assert "FLEET_KEY_FILE" not in environment(staging)


def test_a_foundation_without_the_key_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(FOUNDATION_OUTPUTS, "fleet_key")
    with pytest.raises(pulumi.RunError, match=r"has no wrapping key .* Set `ibkr:fleet.enabled`"):
        plan_of(settings_of("staging", FLEET))


def test_the_local_key_is_a_file_that_the_service_alone_reads(local: Plan) -> None:
    template = service(local)
    [volume] = template["volumes"]
    [mount] = template["containers"][0]["volumeMounts"]
    assert volume["secret"] == {
        "secret": "ibkr-fleet-key",
        "items": [{"path": "key", "version": "1"}],
    }
    assert (mount["name"], mount["mountPath"]) == (volume["name"], "/secrets/fleet")
    assert environment(local)["FLEET_KEY_FILE"] == "/secrets/fleet/key"
    readers = {found.inputs["member"] for found in local.of("SecretIamMember") if "fleet-key" in found.name}
    assert readers == {"serviceAccount:ibkr-api@ibkr.iam.gserviceaccount.com"}
    assert "secretData" in local.one("SecretVersion", "fleet-key").secrets
    made = local.one("Command", "fleet-key")
    assert made.inputs["logging"] == "none"
    assert "stdout" in made.options["additionalSecretOutputs"]


def test_droplets_reach_the_service_through_their_firewall(staging: Plan, local: Plan) -> None:
    def ports(plan: Plan) -> list[str]:
        rules = plan.one("firewall:Firewall", "-fleet-").inputs["outboundRules"]
        return [rule["portRange"] for rule in rules if rule["protocol"] == "tcp"]

    assert ports(staging).count("443") == 1
    assert "8080" in ports(local)
    assert "8080" not in ports(staging)


def test_the_broker_ibeam_trades_through_the_declared_droplet() -> None:
    plan = plan_of(settings_of("local", {"ibkr:brokerType": "ibeam"}))
    told = environment(plan)
    assert told["IBEAM_URL"] == "https://203.0.113.20:5000"
    token = plan.one("SecretVersion", "ibeam-token")
    assert token.inputs["secretData"] == gateway_token("what-the-command-printed\n", "demo-ib-paper-1")
    assert "secretData" in token.secrets
    assert service(plan)["scaling"] == {"minInstanceCount": 1, "maxInstanceCount": 1}
    assert "IBEAM_URL" not in environment(plan_of(settings_of("local")))
