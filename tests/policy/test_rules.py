"""Each rule by itself: what it refuses, with which remedy, and what it lets pass.

That the engine asks the rules, and what it says, is tested in tests/providers/test_policy.py.
"""

from __future__ import annotations

from typing import Any

import pytest

from policy.model import UNKNOWN, Resource, Secret, Stack
from policy.rules import RULES

CONFIG = {
    "ibkr:network": {"connectorRange": "10.10.1.0/28"},
    "ibkr:gatewayCredentials": {"username": "gatewayuser", "password": "hunter2-hunter2"},
    "ibkr:databasePassword": "database-password",
    "ibkr:ibeam": {"users": [{"name": "ann", "username": "annsuser", "password": "anns-password"}]},
}
STAGING, PROD = Stack("staging", CONFIG), Stack("prod", CONFIG)
INSTANCE = "gcp:compute/instance:Instance"
FIREWALL = "gcp:compute/firewall:Firewall"
SERVICE = "gcp:cloudrunv2/service:Service"
DATABASE = "gcp:sql/databaseInstance:DatabaseInstance"
DISK = "gcp:compute/disk:Disk"
DROPLET = "digitalocean:index/droplet:Droplet"
DROPLET_FIREWALL = "digitalocean:index/firewall:Firewall"
COMMAND = "command:local:Command"
ALERT = "gcp:monitoring/alertPolicy:AlertPolicy"
BUDGET = "gcp:billing/budget:Budget"
UPTIME_CHECK = "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig"
LABELS = {"app": "ibkr", "stack": "staging", "managed-by": "pulumi"}
TCP = [{"protocol": "tcp", "ports": ["4002"]}]


def problems(
    rule: str, kind: str, inputs: dict[str, Any], stack: Stack = STAGING, protect: bool = False
) -> str:
    """What a rule says of one resource, in one text."""
    return "\n".join(RULES[rule](Resource(kind, "it", inputs, protect), stack))


def service(**variable: Any) -> dict[str, Any]:
    """A service with one environment variable."""
    return {"template": {"containers": [{"envs": [variable]}]}}


def job(**variable: Any) -> dict[str, Any]:
    return {"template": service(**variable)}


REFUSED: list[tuple[str, str, dict[str, Any], str]] = [
    ("alerts-reach-somebody", ALERT, {}, "notifies nobody"),
    ("alerts-reach-somebody", ALERT, {"notificationChannels": []}, "notifies nobody"),
    ("alerts-reach-somebody", ALERT, {"enabled": False, "notificationChannels": ["c"]}, "switched off"),
    ("alerts-reach-somebody", BUDGET, {"thresholdRules": []}, "has no threshold"),
    ("labels", UPTIME_CHECK, {"labels": LABELS}, "lacks the labels app, stack, managed-by"),
    (
        "no-plaintext-secret",
        UPTIME_CHECK,
        {"httpCheck": {"headers": {"Authorization": "Bearer x"}}},
        "sends Authorization",
    ),
    ("no-plaintext-secret", UPTIME_CHECK, {"httpCheck": {"authInfo": Secret({})}}, "sends authInfo"),
    ("allowed-region", "gcp:kms/keyRing:KeyRing", {"location": "europe"}, "is in europe"),
    (
        "no-public-address",
        INSTANCE,
        {"networkInterfaces": [{"accessConfigs": [{}]}]},
        "Take access_configs off",
    ),
    ("no-public-address", INSTANCE, {"networkInterfaces": [{"ipv6AccessConfigs": [{}]}]}, "public IP"),
    ("no-public-address", DATABASE, {"settings": {"tier": "db-f1-micro"}}, "ipv4_enabled to false"),
    ("no-public-address", DATABASE, {"settings": {"ipConfiguration": {"ipv4Enabled": True}}}, "ipv4_enabled"),
    (
        "no-open-ingress",
        FIREWALL,
        {"allows": TCP, "sourceRanges": ["0.0.0.0/0"]},
        "0.0.0.0/0, which is the inter",
    ),
    ("no-open-ingress", FIREWALL, {"allows": TCP, "sourceRanges": ["::/0"]}, "::/0"),
    (
        "no-open-ingress",
        FIREWALL,
        {"allows": TCP, "sourceRanges": ["0.0.0.0/1", "128.0.0.0/1"]},
        "128.0.0.0/1",
    ),
    ("no-open-ingress", FIREWALL, {"allows": TCP, "direction": "INGRESS"}, "names no source"),
    (
        "no-open-ingress",
        DROPLET_FIREWALL,
        {
            "inboundRules": [
                {"protocol": "tcp", "portRange": "5000", "sourceAddresses": ["0.0.0.0/0", "::/0"]}
            ]
        },
        "<nat_ip>/32",
    ),
    (
        "gateway-ports-from-connector-only",
        FIREWALL,
        {"allows": TCP, "sourceRanges": ["10.0.0.0/8"]},  # the migration plan's own
        "Admit 10.10.1.0/28 (ibkr:network.connectorRange)",
    ),
    (
        "gateway-ports-from-connector-only",
        FIREWALL,
        {"allows": [{"protocol": "all"}], "sourceRanges": ["10.10.0.0/24"]},
        "whoever reaches that port can trade",
    ),
    (
        "gateway-ports-from-connector-only",
        FIREWALL,
        {"allows": [{"protocol": "TCP", "ports": ["22", "4000-5000"]}], "sourceRanges": ["10.10.0.0/24"]},
        "10.10.0.0/24",
    ),
    ("gateway-ports-from-connector-only", FIREWALL, {"allows": TCP, "sourceTags": ["web"]}, "by tag"),
    ("no-plaintext-secret", SERVICE, service(name="ALPACA_SECRET_KEY", value="abc"), "value_source"),
    ("no-plaintext-secret", SERVICE, service(name="DATABASE_URL", value="sqlite:///x"), "Secret Manager"),
    (
        "no-plaintext-secret",
        SERVICE,
        service(name="GREETING", value="hunter2-hunter2"),
        "GREETING in plain text",
    ),
    ("no-plaintext-secret", SERVICE, service(name="X", value=Secret("hunter2-hunter2")), "X in plain text"),
    (
        "no-plaintext-secret",
        "gcp:cloudrunv2/job:Job",
        job(name="X", value="pg://u:pw@10.0.0.3/x"),
        "X in plain",
    ),
    (
        "no-plaintext-secret",
        INSTANCE,
        {"metadata": {"user-data": "password: hunter2-hunter2"}},
        "metadata.user",
    ),
    ("no-plaintext-secret", INSTANCE, {"metadata": {"note": Secret("x")}}, "has a secret in metadata"),
    ("no-plaintext-secret", INSTANCE, {"metadata": Secret({"note": "x"})}, "has a secret in metadata"),
    (
        "no-plaintext-secret",
        INSTANCE,
        {"metadataStartupScript": "-----BEGIN RSA PRIVATE KEY-----"},
        "what looks like a key",
    ),
    ("no-plaintext-secret", DROPLET, {"userData": "login: anns-password"}, "Wrap the value in"),
    ("no-plaintext-secret", COMMAND, {"create": "curl -H dop_v1_" + 64 * "a"}, "process's environment"),
    ("no-plaintext-secret", COMMAND, {"environment": {"P": "database-password"}}, "ibkr:databasePassword"),
    *(
        ("no-primitive-role", f"gcp:projects/{kind}", {"role": role}, "roles/run.viewer")
        for kind in ("iAMMember:IAMMember", "iAMBinding:IAMBinding")
        for role in ("roles/owner", "roles/editor", "roles/viewer")
    ),
    (
        "no-primitive-role",
        "gcp:projects/iAMPolicy:IAMPolicy",
        {"policyData": '{"bindings": [{"role": "roles/editor", "members": ["user:ann@trader.test"]}]}'},
        "roles/editor",
    ),
    ("labels", DATABASE, {"settings": {"tier": "db-f1-micro"}}, "managed-by"),
    ("labels", SERVICE, {"labels": {"app": "ibkr"}}, "lacks the labels stack, managed-by"),
    ("labels", DISK, {}, "labels=labels(settings)"),
    ("labels", DROPLET, {"tags": ["ibkr"]}, "broker.fleet.spec"),
    ("allowed-region", INSTANCE, {"zone": "asia-east1-b"}, "policy/allowed.py"),
    ("allowed-region", SERVICE, {"location": "europe-west1"}, "us-west1"),
    ("allowed-region", "gcp:kms/keyRing:KeyRing", {"location": "eu"}, "is in eu"),
    ("allowed-region", DROPLET, {"region": "blr1"}, "nyc1"),
    ("machine-size", INSTANCE, {"machineType": "n2-standard-32"}, "e2-small"),
    ("machine-size", DROPLET, {"size": "g-8vcpu-32gb"}, "s-1vcpu-1gb"),
    ("machine-size", DISK, {"size": 4000}, "at most 200"),
    ("machine-size", SERVICE, {"template": {"scaling": {"maxInstanceCount": 100}}}, "at most 20"),
    ("machine-size", DATABASE, {"settings": {"tier": "db-custom-16-65536"}}, "4 CPUs"),
    ("machine-size", DATABASE, {"settings": {"tier": "db-perf-optimized-N-8"}}, "db-f1-micro"),
    ("machine-size", "gcp:vpcaccess/connector:Connector", {"machineType": "e2-standard-8"}, "e2-micro"),
]
PASSES: list[tuple[str, str, dict[str, Any]]] = [
    ("alerts-reach-somebody", ALERT, {"notificationChannels": [UNKNOWN]}),
    ("alerts-reach-somebody", BUDGET, {"thresholdRules": [{"thresholdPercent": 1}]}),
    ("labels", ALERT, {"userLabels": LABELS}),
    ("no-plaintext-secret", UPTIME_CHECK, {"httpCheck": {"path": "/health", "headers": {"Accept": "*/*"}}}),
    ("allowed-region", "gcp:kms/keyRing:KeyRing", {"location": "us"}),
    ("no-public-address", INSTANCE, {"networkInterfaces": [{"subnetwork": "s"}]}),
    ("no-public-address", DATABASE, {"settings": {"ipConfiguration": {"ipv4Enabled": False}}}),
    ("no-open-ingress", FIREWALL, {"allows": TCP, "sourceRanges": ["10.10.1.0/28"]}),
    ("no-open-ingress", FIREWALL, {"allows": TCP, "sourceTags": ["web"]}),
    ("no-open-ingress", FIREWALL, {"denies": [{"protocol": "all"}], "sourceRanges": ["0.0.0.0/0"]}),
    ("no-open-ingress", FIREWALL, {"allows": TCP, "direction": "EGRESS"}),
    ("no-open-ingress", FIREWALL, {"allows": TCP, "sourceRanges": UNKNOWN}),
    ("no-open-ingress", DROPLET_FIREWALL, {"inboundRules": [{"sourceAddresses": ["203.0.113.7/32"]}]}),
    ("no-open-ingress", DROPLET_FIREWALL, {"outboundRules": [{"destinationAddresses": ["0.0.0.0/0"]}]}),
    ("gateway-ports-from-connector-only", FIREWALL, {"allows": TCP, "sourceRanges": ["10.10.1.0/28"]}),
    ("gateway-ports-from-connector-only", FIREWALL, {"allows": TCP, "sourceRanges": ["35.235.240.0/20"]}),
    (
        "gateway-ports-from-connector-only",
        FIREWALL,
        {"allows": [{"protocol": "tcp", "ports": ["22", "80-443"]}], "sourceRanges": ["10.0.0.0/8"]},
    ),
    (
        "gateway-ports-from-connector-only",
        FIREWALL,
        {"allows": [{"protocol": "icmp"}], "sourceRanges": ["10.0.0.0/8"]},
    ),
    ("no-plaintext-secret", SERVICE, service(name="BROKER_TYPE", value="ibkr")),
    ("no-plaintext-secret", SERVICE, service(name="ALPACA_SECRET_KEY", valueSource={"secretKeyRef": {}})),
    ("no-plaintext-secret", SERVICE, service(name="FLEET_KEY_FILE", value="/secrets/fleet/key")),
    ("no-plaintext-secret", SERVICE, service(name="TOKEN_ISSUER", value="https://auth.example.com/")),
    ("no-plaintext-secret", SERVICE, service(name="API_KEY", value=UNKNOWN)),
    ("no-plaintext-secret", INSTANCE, {"metadata": {"user-data": "secret: projects/1/secrets/x/versions/1"}}),
    ("no-plaintext-secret", DROPLET, {"userData": Secret("login: anns-password")}),
    ("no-plaintext-secret", COMMAND, {"environment": Secret({"P": "database-password"})}),
    ("no-primitive-role", "gcp:projects/iAMMember:IAMMember", {"role": "roles/run.viewer"}),
    ("no-plaintext-secret", INSTANCE, {"metadata": {"user-data": "adduser gatewayusers"}}),
    ("labels", SERVICE, {"labels": LABELS}),
    ("labels", DATABASE, {"settings": {"userLabels": LABELS}}),
    ("labels", "gcp:compute/network:Network", {}),
    ("labels", DROPLET, {"tags": ["stack:staging"]}),
    ("allowed-region", INSTANCE, {"zone": "us-west1-b"}),
    ("allowed-region", "gcp:iam/workloadIdentityPool:WorkloadIdentityPool", {"location": "global"}),
    ("allowed-region", DROPLET, {"region": "nyc1"}),
    ("allowed-region", DROPLET, {"region": UNKNOWN}),
    ("machine-size", INSTANCE, {"machineType": "e2-small"}),
    ("machine-size", DATABASE, {"settings": {"tier": "db-custom-1-3840"}}),
    ("machine-size", SERVICE, {"template": {"scaling": {"maxInstanceCount": 3}}}),
]


@pytest.mark.parametrize(("rule", "kind", "inputs", "says"), REFUSED)
def test_a_violation_is_refused_with_its_remedy(
    rule: str, kind: str, inputs: dict[str, Any], says: str
) -> None:
    said = problems(rule, kind, inputs)
    assert says in said, f"{rule} must refuse {inputs}"
    for secret in ("hunter2", "anns-password", "database-password", "dop_v1_a"):
        assert secret not in said, "a message that gives the secret away is a leak of its own"


@pytest.mark.parametrize(("rule", "kind", "inputs"), PASSES)
def test_what_keeps_the_rule_passes(rule: str, kind: str, inputs: dict[str, Any]) -> None:
    assert not problems(rule, kind, inputs)


@pytest.mark.parametrize("kind", [SERVICE, INSTANCE, DATABASE])
def test_production_refuses_what_may_be_deleted(kind: str) -> None:
    rule = "deletion-protection-in-production"
    assert "deletionProtection: true" in problems(
        rule, kind, {"deletionProtection": False}, PROD, protect=True
    )
    assert not problems(rule, kind, {"deletionProtection": False}, STAGING)
    assert problems(rule, kind, {"deletionProtection": False}, Stack("a-prod", {}))
    assert problems(rule, kind, {"deletionProtection": False}, Stack("x", {"ibkr:tradingMode": "live"}))


def test_production_passes_what_is_protected_and_backed_up() -> None:
    rule = "deletion-protection-in-production"
    kept = {"deletionProtection": True, "settings": {"backupConfiguration": {"enabled": True}}}
    assert not problems(rule, DATABASE, kept, PROD, protect=True)
    assert not problems(rule, SERVICE, {}, PROD), "Google protects a service unless it is told not to"
    assert not problems(rule, DISK, {}, PROD, protect=True)


@pytest.mark.parametrize("kind", [DISK, "gcp:kms/cryptoKey:CryptoKey", DATABASE])
def test_production_refuses_what_pulumi_may_delete(kind: str) -> None:
    kept = {"deletionProtection": True, "settings": {"backupConfiguration": {"enabled": True}}}
    assert "protect=True" in problems("deletion-protection-in-production", kind, kept, PROD)


def test_production_refuses_a_database_without_backups() -> None:
    said = problems("deletion-protection-in-production", DATABASE, {"settings": {}}, PROD, protect=True)
    assert "ibkr:database.backups" in said


def test_every_rule_is_tried_both_ways() -> None:
    separately = {"deletion-protection-in-production"}
    assert {case[0] for case in REFUSED} | separately == set(RULES)
    assert {case[0] for case in PASSES} | separately == set(RULES)
