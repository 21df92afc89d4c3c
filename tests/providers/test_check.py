"""What a preview refuses, from the facts alone: the shape of inputs, and the rules about them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localcloud.providers.rules import RELATIONS, SAYINGS, VALUE_RULES, broken_rules
from localcloud.providers.schema import Facts, load_facts
from localcloud.providers.values import ASSET, SIGNATURE, UNKNOWN

NETWORK = "gcp:compute/network:Network"
FIREWALL = "gcp:compute/firewall:Firewall"
CONNECTOR = "gcp:vpcaccess/connector:Connector"
DROPLET = "digitalocean:index/droplet:Droplet"
PACKAGES = ("gcp", "digitalocean", "command")
ALL_TYPES = [(package, token) for package in PACKAGES for token in load_facts(package).resources]


def broken(token: str, secrets: set[Any] | None = None, **inputs: Any) -> dict[str, str]:
    """Reasons by property."""
    facts = load_facts(token.partition(":")[0])
    checked, failures = facts.check(token, inputs)
    failures += broken_rules(facts.resources[token], checked, secrets or set())
    return {failure.property: failure.reason for failure in failures}


def values_of(facts: Facts, type_: str) -> st.SearchStrategy[Any]:
    """Values that have a declared type."""
    if "|" in type_:
        return values_of(facts, type_.split("|")[0])
    if type_.startswith("["):
        return st.lists(values_of(facts, type_[1:-1]), max_size=2)
    if type_.startswith("{"):
        return st.dictionaries(st.text(min_size=1, max_size=3), values_of(facts, type_[1:-1]), max_size=2)
    if type_ in facts.types:
        return st.deferred(lambda: objects_of(facts, facts.types[type_]))
    if type_ in facts.enums:
        return st.sampled_from(facts.enums[type_])
    simple: dict[str, st.SearchStrategy[Any]] = {
        "string": st.text(max_size=5),
        "boolean": st.booleans(),
        "integer": st.integers(-5, 5000),
        "number": st.floats(0, 1),
        "pulumi.json#/Any": st.text(max_size=3),
        "pulumi.json#/Asset": st.just({SIGNATURE: ASSET, "text": "x"}),
    }
    return simple[type_] | st.just(UNKNOWN)


def objects_of(facts: Facts, properties: Any) -> st.SearchStrategy[dict[str, Any]]:
    required = {n: values_of(facts, p.type) for n, p in properties.items() if p.required}
    few = list(properties.items())[:6]
    optional = {n: values_of(facts, p.type) for n, p in few if not p.required}
    return st.fixed_dictionaries(required, optional=optional)


@pytest.mark.parametrize(("package", "token"), ALL_TYPES)
def test_well_typed_inputs_pass_and_come_back_unchanged(package: str, token: str) -> None:
    facts = load_facts(package)

    @settings(max_examples=4, deadline=None)
    @given(objects_of(facts, facts.resources[token].inputs))
    def passes(inputs: dict[str, Any]) -> None:
        checked, failures = facts.check(token, inputs)
        assert failures == []
        assert checked == inputs
        broken_rules(facts.resources[token], checked, set())
        facts.with_defaults(token, checked)

    passes()


@pytest.mark.parametrize(("package", "token"), ALL_TYPES)
def test_every_required_input_is_missed_by_its_name(package: str, token: str) -> None:
    facts = load_facts(package)
    _, failures = facts.check(token, {})
    missed = {failure.property for failure in failures}
    assert missed == {name for name, known in facts.resources[token].inputs.items() if known.required}


def test_every_rule_of_the_facts_is_one_that_is_checked() -> None:
    told_elsewhere = {"default", "providerMayFill"}
    for package, token in ALL_TYPES:
        for path, rules in load_facts(package).resources[token].rules.items():
            unknown = set(rules) - set(VALUE_RULES) - set(RELATIONS) - told_elsewhere
            assert not unknown, f"{token} {path}: nothing checks {unknown}"
            for words in rules.get("says", ()):
                known = [said for said, _ in SAYINGS if said in words]
                assert known, f"{token} {path}: nothing checks {words!r}"


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = broken(
        FIREWALL, nam="x", priority=70000, sourceTags=["a"], sourceServiceAccounts=["b"], disabled="yes"
    )
    assert set(found) == {
        "nam", "network", "allows", "denies", "priority", "sourceTags", "sourceServiceAccounts", "disabled"
    }  # fmt: skip
    assert "did you mean 'name'?" in found["nam"]
    assert found["network"] == "Missing required property 'network'"
    assert found["disabled"] == "expected disabled to be a boolean, got a string"


@pytest.mark.parametrize(
    ("token", "inputs", "wrong", "words"),
    [
        (NETWORK, {"name": "Net"}, "name", "doesn't match regexp"),
        (NETWORK, {"name": "net\n"}, "name", "doesn't match regexp"),
        (NETWORK, {"routingMode": "LOCAL"}, "routingMode", 'one of ["REGIONAL", "GLOBAL"], got LOCAL'),
        (
            "gcp:compute/subnetwork:Subnetwork",
            {"network": "n", "ipCidrRange": "10.0.0.0"},
            "ipCidrRange",
            "not a valid IP CIDR range",
        ),
        (
            "gcp:compute/subnetwork:Subnetwork",
            {"network": "n", "ipCidrRange": "10.0.0.1/24"},
            "ipCidrRange",
            "expected 10.0.0.0/24",
        ),
        (CONNECTOR, {"ipCidrRange": "10.8.0.0/28"}, "ipCidrRange", "all of `ipCidrRange,network`"),
        (CONNECTOR, {"maxThroughput": 150}, "maxThroughput", "range (200 - 1000), got 150"),
        (
            "gcp:serviceaccount/account:Account",
            {"accountId": "abc"},
            "accountId",
            "length of accountId to be in the range (6 - 30)",
        ),
        (
            "gcp:projects/iAMMember:IAMMember",
            {"project": "local", "role": "roles/viewer", "member": "somebody"},
            "member",
            "invalid value",
        ),
        (
            "gcp:secretmanager/secret:Secret",
            {"secretId": "s", "replication": {}},
            "replication.auto",
            "one of `replication.auto,replication.userManaged` must be specified",
        ),
        (DROPLET, {"image": "i", "size": "s", "tags": ["Ibeam"]}, "tags[0]", "lowercase letters"),
        (DROPLET, {"image": "", "size": "s"}, "image", "to not be an empty string"),
        (DROPLET, {"image": "i", "size": "s", "backupPolicy": {}}, "backupPolicy", "all of"),
        (
            "gcp:kms/cryptoKey:CryptoKey",
            {"keyRing": "k", "rotationPeriod": "3600s"},
            "rotationPeriod",
            "Invalid rotation period",
        ),
        (
            "gcp:compute/instance:Instance",
            {
                "bootDisk": {"mode": "READ"},
                "machineType": "e2-medium",
                "networkInterfaces": [{"network": "n"}, {"netwrok": "n"}],
            },
            "networkInterfaces[1].netwrok",
            "did you mean 'network'?",
        ),
        ("command:local:Command", {"logging": "all"}, "logging", "to be one of stdout, stderr"),
    ],
)
def test_a_broken_rule_names_its_property(token: str, inputs: dict[str, Any], wrong: str, words: str) -> None:
    found = broken(token, **inputs)
    assert wrong in found
    assert words in found[wrong]


def test_a_value_that_is_not_known_yet_breaks_no_rule() -> None:
    assert not broken(FIREWALL, network=UNKNOWN, priority=UNKNOWN, allows=UNKNOWN, name=UNKNOWN)


def test_a_rule_within_a_block_applies_only_where_the_block_is_written() -> None:
    base = {"network": "n", "ipCidrRange": "10.0.0.0/24"}
    assert not broken("gcp:compute/subnetwork:Subnetwork", **base)
    found = broken("gcp:compute/subnetwork:Subnetwork", **base, logConfig={})
    assert any("logConfig" in name for name in found)


def test_a_secret_is_never_repeated_in_a_message() -> None:
    found = broken(NETWORK, {("routingMode",)}, routingMode="hunter2")
    assert "hunter2" not in found["routingMode"]
    assert "(sensitive value)" in found["routingMode"]


def test_a_number_may_be_written_as_text_but_nothing_else_is_converted() -> None:
    facts = load_facts("digitalocean")
    checked, failures = facts.check("digitalocean:index/firewall:Firewall", {"dropletIds": ["512", 7]})
    assert checked["dropletIds"] == [512, 7]
    assert not failures
    _, failures = facts.check("digitalocean:index/firewall:Firewall", {"dropletIds": ["web"], "name": 5})
    assert {failure.property for failure in failures} == {"dropletIds[0]", "name"}


def test_defaults_are_filled_in_where_their_block_is_written() -> None:
    facts = load_facts("gcp")
    token = "gcp:cloudrunv2/service:Service"
    inputs = {"location": "us-west1", "template": {"containers": [{"image": "i", "startupProbe": {}}]}}
    filled = facts.with_defaults(token, inputs)
    assert filled["deletionProtection"] is True
    assert filled["template"]["containers"][0]["startupProbe"]["periodSeconds"] == 10
    assert "livenessProbe" not in filled["template"]["containers"][0]
    assert inputs["template"]["containers"][0] == {"image": "i", "startupProbe": {}}, (
        "the inputs were changed"
    )


def test_secret_inputs_are_found_at_every_depth() -> None:
    facts = load_facts("gcp")
    inputs = {"bootDisk": {"diskEncryptionKeyRaw": "k"}, "attachedDisks": [{}, {"diskEncryptionKeyRaw": "k"}]}
    assert set(facts.secret_paths("gcp:compute/instance:Instance", inputs)) == {
        ("bootDisk", "diskEncryptionKeyRaw"),
        ("attachedDisks", 1, "diskEncryptionKeyRaw"),
    }
