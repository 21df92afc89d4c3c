"""The components under mocks: what they declare, in what order, and what is kept from whom.

What a provider does with it is tested in tests/providers, the whole with the real engine in tests/e2e.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
from typing import Any

import pytest
import yaml

from broker.fleet.spec import gateway_token
from broker.service.settings import read_service_settings
from components.ci_identity import deploy_attribute
from components.database import database_url
from components.fleet_firewall import single_address
from stacks import environment as declared_environment
from tests.stacks.inventory import ALPACA
from tests.stacks.plan import FOUNDATION_OUTPUTS, NUMBER, Plan, plan_of, settings_of


@pytest.fixture(scope="module")
def local() -> Plan:
    return plan_of(settings_of("local"))


@pytest.fixture(scope="module")
def staging() -> Plan:
    return plan_of(settings_of("staging"))


@pytest.fixture(scope="module")
def prod() -> Plan:
    return plan_of(settings_of("prod"))


def user_data(plan: Plan) -> dict[str, Any]:
    """The gateway VM's cloud-init, parsed."""
    text = plan.one("compute/instance:Instance").inputs["metadata"]["user-data"]
    parsed: dict[str, Any] = yaml.safe_load(text)
    return parsed


def environment(plan: Plan) -> dict[str, Any]:
    """The service's environment variables: a value, or (secret, version)."""
    found = {}
    container = plan.one("cloudrunv2/service:Service").inputs["template"]["containers"][0]
    for entry in container["envs"]:
        reference = entry.get("valueSource", {}).get("secretKeyRef")
        found[entry["name"]] = (reference["secret"], reference["version"]) if reference else entry["value"]
    return found


def test_the_gateway_has_no_public_address(staging: Plan) -> None:
    interfaces = staging.one("compute/instance:Instance").inputs["networkInterfaces"]
    assert len(interfaces) == 1
    assert "accessConfigs" not in interfaces[0], "an access config is a public address"
    assert interfaces[0]["networkIp"] == "10.10.0.5", "the reserved one, which survives a replacement"


def test_the_gateway_is_the_machine_of_the_migration_plan(staging: Plan) -> None:
    machine = staging.one("compute/instance:Instance").inputs
    assert machine["name"] == "ibkr-gateway"
    assert machine["zone"] == "us-west1-b"
    assert machine["tags"] == ["ibkr-gateway"]
    boot = machine["bootDisk"]["initializeParams"]
    assert (boot["image"], boot["size"]) == ("ubuntu-os-cloud/ubuntu-2204-lts", 20)
    assert machine["machineType"] == "e2-small", "IB Gateway doesn't fit into an e2-micro"


def test_the_gateway_metadata_names_its_secret_and_holds_none(staging: Plan) -> None:
    machine = staging.one("compute/instance:Instance")
    text = json.dumps(machine.inputs)
    assert f"projects/{NUMBER}/secrets/ibkr-gateway-credentials/versions/1" in text
    assert "gatewayuser" not in text, "whoever may look at the instance reads its metadata"
    assert machine.secrets == frozenset(), "so nothing in it has to be hidden in the state"
    assert user_data(staging)["write_files"], "cloud-init has something to do"


def test_changed_user_data_replaces_the_gateway_old_one_first(staging: Plan) -> None:
    options = staging.one("compute/instance:Instance").options
    assert options["replaceOnChanges"] == ['metadata["user-data"]'], "cloud-init runs at a first boot only"
    assert options["deleteBeforeReplace"], "the name, the disk and IBKR's session exist once"


def test_the_gateway_boots_after_its_grant_and_its_way_out(staging: Plan) -> None:
    waits_for = staging.one("compute/instance:Instance").waits_for
    for needed in ("ibkr-gateway-credentials-version", "ibkr-gateway-credentials-gateway-access", "ibkr-nat"):
        assert needed in waits_for, "its first boot reads the secret and downloads software"


def test_the_gateway_may_read_its_installer_in_a_private_bucket_and_no_other_object() -> None:
    source = {"ibkr:gateway.software.gatewaySource": "gs://our-software/ibgateway/1045.sh"}
    plan = plan_of(settings_of("staging", source))
    (grant,) = [found for found in plan.resources if found.inputs.get("role") == "roles/storage.objectViewer"]
    assert grant.inputs["condition"]["expression"] == (
        'resource.name == "projects/_/buckets/our-software/objects/ibgateway/1045.sh"'
    )
    assert grant.inputs["member"].startswith("serviceAccount:ibkr-gateway@")
    assert grant.name in plan.one("compute/instance:Instance").waits_for


def test_the_gateway_reads_secrets_only_with_the_scope(staging: Plan) -> None:
    account = staging.one("compute/instance:Instance").inputs["serviceAccount"]
    assert account["scopes"] == ["cloud-platform"]
    assert account["email"].startswith("ibkr-gateway@")


def test_settings_live_on_a_disk_of_their_own(prod: Plan, local: Plan) -> None:
    assert prod.one("compute/disk:Disk").options["protect"], "it holds the session of a live login"
    assert not local.one("compute/disk:Disk").options["protect"], "`make destroy` leaves nothing behind"
    attached = prod.one("compute/instance:Instance").inputs["attachedDisks"][0]
    assert f"/dev/disk/by-id/google-{attached['deviceName']}" in json.dumps(user_data(prod))


def test_a_secret_has_one_grant_per_reader_and_no_other(staging: Plan) -> None:
    readers = {
        (found.inputs["secretId"].rpartition("/")[2], found.inputs["member"].split("@")[0])
        for found in staging.of("SecretIamMember")
    }
    assert readers == {
        ("ibkr-gateway-credentials", "serviceAccount:ibkr-gateway"),
        ("ibkr-database-url", "serviceAccount:ibkr-api"),
        ("ibkr-database-url", "serviceAccount:ibkr-migrate"),
    }


def test_the_gateway_loses_its_secret_when_the_settings_say_so() -> None:
    plan = plan_of(settings_of("local", {"ibkr:gateway.mayReadCredentials": False}))
    assert not [found for found in plan.of("SecretIamMember") if "gateway" in found.name]


def test_credentials_are_one_json_document_whatever_they_hold(local: Plan) -> None:
    version = local.one("SecretVersion", "gateway-credentials")
    assert version.secrets == {"secretData"}
    assert json.loads(version.inputs["secretData"]) == {
        "username": "gatewayuser",
        "password": "gateway-pa$$ \\ \"'",
    }


def test_the_connector_reaches_the_api_port_and_nothing_else(staging: Plan) -> None:
    allow = staging.one("Firewall", "allow-connector").inputs
    deny = staging.one("Firewall", "deny-connector").inputs
    assert allow["priority"] < deny["priority"] < 1000, "Google's hidden rule allows everything at 1000"
    assert allow["sourceRanges"] == deny["sourceRanges"] == ["10.10.1.0/28"]
    assert allow["allows"] == [{"protocol": "tcp", "ports": ["4002"]}]
    assert deny["denies"] == [{"protocol": "all"}]
    assert "targetTags" not in deny, "the whole VPC is kept from the connector"


def test_only_iap_reaches_ssh(staging: Plan) -> None:
    for rule in staging.of("compute/firewall:Firewall"):
        assert rule.inputs["sourceRanges"] != ["0.0.0.0/0"]
        ports = [port for allow in rule.inputs.get("allows", []) for port in allow.get("ports", [])]
        if "22" in ports:
            assert rule.inputs["sourceRanges"] == ["35.235.240.0/20"]


@pytest.mark.parametrize(
    ("switch", "rule"), [("allowConnector", "allow-connector"), ("denyConnector", "deny-connector")]
)
def test_a_connector_rule_can_be_taken_away_by_itself(switch: str, rule: str) -> None:
    plan = plan_of(settings_of("local", {f"ibkr:network.{switch}": False}))
    names = {found.name for found in plan.of("compute/firewall:Firewall")}
    assert f"ibkr-gateway-{rule}" not in names
    assert len(names) == 2


def test_the_connector_has_a_subnet_of_its_own(staging: Plan) -> None:
    connector = staging.one("Connector").inputs
    assert "ipCidrRange" not in connector
    subnet = staging.one("Subnetwork", "connector").inputs
    assert (connector["subnet"]["name"], subnet["ipCidrRange"]) == (subnet["name"], "10.10.1.0/28")


def test_all_egress_leaves_by_one_reserved_address(staging: Plan) -> None:
    nat = staging.one("RouterNat").inputs
    assert nat["natIpAllocateOption"] == "MANUAL_ONLY", "IBKR ends sessions whose address changes"
    assert len(nat["natIps"]) == 1
    assert len(nat["subnetworks"]) == 2, "the gateway's and the connector's"
    access = staging.one("cloudrunv2/service:Service").inputs["template"]["vpcAccess"]
    assert access["egress"] == "ALL_TRAFFIC", "the droplets admit the NAT's address only"


def test_a_service_with_a_brokers_socket_is_one_instance_that_never_sleeps(staging: Plan) -> None:
    template = staging.one("cloudrunv2/service:Service").inputs["template"]
    assert template["scaling"] == {"minInstanceCount": 1, "maxInstanceCount": 1}
    assert template["containers"][0]["resources"]["cpuIdle"] is False, "a frozen loop drops its socket"


def test_a_service_without_one_scales_out() -> None:
    plan = plan_of(settings_of("staging", ALPACA))
    template = plan.one("cloudrunv2/service:Service").inputs["template"]
    assert template["scaling"] == {"minInstanceCount": 0, "maxInstanceCount": 3}


def test_no_probe_looks_at_the_gateway(staging: Plan) -> None:
    container = staging.one("cloudrunv2/service:Service").inputs["template"]["containers"][0]
    paths = {name: container[name]["httpGet"]["path"] for name in container if name.endswith("Probe")}
    assert paths == {"startupProbe": "/healthz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_the_service_gets_the_documented_environment(staging: Plan, local: Plan) -> None:
    found = environment(staging)
    assert found["BROKER_TYPE"] == "ibkr"
    assert found["IBKR_GATEWAY_HOST"] == "10.10.0.5", "the VM's reserved address"
    assert (found["IBKR_GATEWAY_PORT"], found["IBKR_CLIENT_ID"]) == ("4002", "1")
    assert found["IBKR_TRADING_MODE"] == "paper"
    assert found["DIGITAL_OCEAN_REGION"] == "nyc1"
    assert found["DATABASE_URL"] == ("ibkr-database-url", "1"), "by pinned version"
    assert environment(local)["DIGITAL_OCEAN_API_KEY"] == ("ibkr-digitalocean-token", "1")
    assert "DIGITAL_OCEAN_API_KEY" not in found, "without a fleet it has no use for it"
    assert "ALPACA_API_KEY" not in found
    assert "CORS_ORIGINS" not in found, "no page elsewhere may call the API unless somebody says so"


def test_the_service_hears_which_pages_elsewhere_may_call_it() -> None:
    origins = ["https://app.your.co", "http://localhost:5173"]
    found = environment(plan_of(settings_of("staging", {"ibkr:api.corsOrigins": origins})))
    read = {name: str(found[name]) for name in ("CORS_ORIGINS", "OIDC_ISSUER", "OIDC_AUDIENCE")}
    settings = read_service_settings(read | {"DATABASE_URL": "postgresql+psycopg://a:b@h/d"})
    assert settings.cors_origins == tuple(origins)


def test_the_service_with_alpaca_gets_its_keys_and_no_gateway() -> None:
    found = environment(plan_of(settings_of("local", ALPACA)))
    assert found["ALPACA_SECRET_KEY"] == ("ibkr-alpaca-secret-key", "1")
    assert not [name for name in found if name.startswith("IBKR_GATEWAY")]


def test_the_service_starts_after_the_migration_and_is_gone_before_the_sweep(local: Plan) -> None:
    waits_for = local.one("cloudrunv2/service:Service").waits_for
    assert "ibkr-migrate-execution" in waits_for, "an instance must find the schema"
    assert "ibkr-fleet-sweep-command" in waits_for, "what depends on the sweep is deleted before it"
    assert "ibkr-database-url-api-access" in waits_for, "secrets resolve when an instance starts"


def test_the_sweep_keeps_no_token(local: Plan) -> None:
    sweep = local.one("Command", "sweep")
    assert sweep.inputs["environment"] == {"SWEEP_STACK": "local"}, "inputs are kept in the state"
    assert sweep.secrets == frozenset()


def test_a_stack_that_makes_no_droplets_needs_no_sweep(staging: Plan) -> None:
    plan = staging
    assert not plan.of("Droplet")
    assert not [found for found in plan.resources if found.type.startswith("digitalocean:")]
    assert not [found for found in plan.resources if "sweep" in found.name]


def test_the_migration_runs_again_when_image_or_migrations_change() -> None:
    first = plan_of(settings_of("local")).one("Command", "migrate").inputs["triggers"]
    other = plan_of(settings_of("local", {"ibkr:api.image": "us-west1-docker.pkg.dev/local/ibkr/api:next"}))
    assert other.one("Command", "migrate").inputs["triggers"][0] != first[0]
    assert len(first[1]) == 16, "the hash of the migrations, for images named by a moving tag"


def test_the_database_has_no_public_address(staging: Plan) -> None:
    settings = staging.one("DatabaseInstance").inputs["settings"]
    assert settings["ipConfiguration"]["ipv4Enabled"] is False
    assert settings["ipConfiguration"]["sslMode"] == "ENCRYPTED_ONLY"
    assert settings["edition"] == "ENTERPRISE", "small tiers exist in no other"


def test_the_database_name_is_left_to_pulumi(staging: Plan) -> None:
    assert "name" not in staging.one("DatabaseInstance").inputs, "Google reserves a deleted one's for a week"


def test_a_kept_database_is_declared_by_the_foundation() -> None:
    foundation = plan_of(settings_of("foundation-prod"))
    environment_plan = plan_of(settings_of("prod"))
    assert foundation.one("DatabaseInstance").options["protect"]
    assert not environment_plan.of("DatabaseInstance")
    assert environment(environment_plan)["DATABASE_URL"] == (
        FOUNDATION_OUTPUTS["database_url_secret"],
        FOUNDATION_OUTPUTS["database_url_version"],
    )
    assert len([found for found in environment_plan.of("SecretIamMember") if "database" in found.name]) == 2


def test_resources_wait_for_the_apis_that_they_use(local: Plan) -> None:
    assert "ibkr-services-compute" in local.one("compute/network:Network").waits_for
    assert "ibkr-services-secretmanager" in local.one("secret:Secret", "gateway").waits_for
    assert "ibkr-services-iam" in local.one("account:Account", "ibkr-api").waits_for
    assert "ibkr-services-run" in local.one("cloudrunv2/service:Service").waits_for
    assert "ibkr-services-sqladmin" in local.one("DatabaseInstance").waits_for
    assert {"ibkr-services-peering"} < local.one("DatabaseInstance").waits_for


def test_a_droplet_is_the_users_machine_and_admits_the_nat_only(local: Plan) -> None:
    droplet = local.one("Droplet")
    assert droplet.inputs["name"] == "demo-ib-paper-1"
    assert {"stack:local", "manager:pulumi", "ibeam"} < set(droplet.inputs["tags"])
    assert droplet.secrets == {"userData"}, "the login is in it"
    assert droplet.options["deleteBeforeReplace"], "two with one login take the session from each other"
    firewall = local.one("digitalocean:index/firewall:Firewall").inputs
    assert firewall["inboundRules"] == [
        {"protocol": "tcp", "portRange": "5000", "sourceAddresses": ["203.0.113.7/32"]}
    ]
    assert firewall["tags"] == ["stack:local"], "of this stack, also what the service makes"
    assert firewall["outboundRules"], "a firewall without outbound rules denies all egress"


def test_a_droplets_login_is_injected_unchanged() -> None:
    password = "a\"b'c\\d/e&f$g{h}[i] ü"
    users = [{"name": "ann", "username": "annpaper", "password": password}]
    droplet = plan_of(settings_of("local", {"ibkr:ibeam.users": users})).one("Droplet")
    files = {entry["path"]: entry for entry in yaml.safe_load(droplet.inputs["userData"])["write_files"]}
    settings = json.loads(base64.b64decode(files["/etc/ibeam/agent.json"]["content"]))
    assert settings["password"] == password
    token = gateway_token("what-the-command-printed", "ann-ib-paper-1")
    assert settings["gateway_token_sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert token not in json.dumps(settings), "the droplet needs to know it when it sees it, and no more"


def test_the_key_of_the_gateway_tokens_is_a_secret_that_nobody_prints(local: Plan) -> None:
    made = local.one("Command", "tokens")
    assert made.inputs["logging"] == "none"
    assert made.options["additionalSecretOutputs"] == ["stdout"]


def test_each_declared_user_gets_a_droplet() -> None:
    users = [{"name": f"user{n}", "username": f"login{n}", "password": "x"} for n in range(5)]
    plan = plan_of(settings_of("local", {"ibkr:ibeam.users": users}))
    assert len(plan.of("Droplet")) == 5
    assert set(plan.outputs["droplets"]) == {f"user{n}-ib-paper-1" for n in range(5)}


def test_operators_get_a_tunnel_and_a_login() -> None:
    plan = plan_of(settings_of("staging", {"ibkr:operators": ["user:ann@trader.test"]}))
    assert plan.one("TunnelInstanceIAMMember").inputs["role"] == "roles/iap.tunnelResourceAccessor"
    assert plan.one("InstanceIAMMember", "login").inputs["member"] == "user:ann@trader.test"


def test_nobody_gets_a_primitive_role() -> None:
    for stack in ("local", "staging", "prod", "foundation-prod"):
        for grant in plan_of(settings_of(stack)).of("IAMMember"):
            assert grant.inputs["role"] not in ("roles/owner", "roles/editor", "roles/viewer"), grant.name


def test_ci_is_trusted_for_one_repository_and_deploys_from_one_branch() -> None:
    plan = plan_of(settings_of("foundation-staging"))
    provider = plan.one("WorkloadIdentityPoolProvider").inputs
    assert provider["attributeCondition"] == "assertion.repository == 'trader/ibkr'"
    assert provider["attributeMapping"]["attribute.deploy"] == deploy_attribute("main", None)
    members = {found.name: found.inputs["member"] for found in plan.of("serviceaccount/iAMMember:IAMMember")}
    assert members["ibkr-ci-deploy-federation"].endswith("/attribute.deploy/yes")
    assert members["ibkr-ci-preview-federation"].endswith("/attribute.repository/trader/ibkr")


def test_production_may_pull_what_staging_has_verified() -> None:
    agent = "serviceAccount:service-1@serverless-robot-prod.iam.gserviceaccount.com"
    plan = plan_of(settings_of("foundation-staging", {"ibkr:registryReaders": [agent]}))
    grant = plan.one("RepositoryIamMember").inputs
    assert (grant["member"], grant["role"]) == (agent, "roles/artifactregistry.reader")
    assert not plan_of(settings_of("foundation-staging")).of("RepositoryIamMember")


def test_production_trusts_only_jobs_in_the_environment_that_people_approve() -> None:
    provider = plan_of(settings_of("foundation-prod")).one("WorkloadIdentityPoolProvider").inputs
    approved = "assertion.sub.endsWith(':environment:prod')"
    to_look = "assertion.sub.endsWith(':environment:prod-drift')"
    assert provider["attributeCondition"] == (
        f"assertion.repository == 'trader/ibkr' && ({approved} || {to_look})"
    )
    assert f" && {approved} ? 'yes'" in provider["attributeMapping"]["attribute.deploy"]
    assert to_look not in provider["attributeMapping"]["attribute.deploy"], "drift may only look"


def test_outputs_are_those_that_the_documentation_names(local: Plan) -> None:
    for name in ("service_url", "gateway_host", "gateway_port", "nat_ip", "droplets", "database"):
        assert local.outputs[name], name


@pytest.mark.parametrize("text", ["pass/word", "a@b:c", "ünï", "100%", "a b+c"])
def test_a_database_url_holds_any_password(text: str) -> None:
    from sqlalchemy import make_url

    url = make_url(database_url("ibkr", text, "10.11.0.3", "ibkr"))
    assert (url.password, url.host, url.drivername) == (text, "10.11.0.3", "postgresql+psycopg")


def test_a_single_address_is_a_range_of_one() -> None:
    assert single_address("203.0.113.7") == "203.0.113.7/32"


def test_the_engine_gets_its_turn_while_the_rest_is_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registrations are sent by the event loop, which has to run before the last declaration."""
    order: list[str] = []
    network, declare_service = declared_environment.Network, declared_environment.declare_service

    def first(*arguments: Any) -> Any:
        asyncio.get_running_loop().call_soon(order.append, "a registration")
        return network(*arguments)

    def last(*arguments: Any) -> Any:
        order.append("the last declaration")
        return declare_service(*arguments)

    monkeypatch.setattr(declared_environment, "Network", first)
    monkeypatch.setattr(declared_environment, "declare_service", last)
    plan_of(settings_of("local"))
    assert order == ["a registration", "the last declaration"]
