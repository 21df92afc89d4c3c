"""What a change means: nothing, an update, or a replacement, as the facts say property by property."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.providers.diff import changes
from localcloud.providers.naming import chosen_name, fixed_name, with_name
from localcloud.providers.schema import load_facts

INSTANCE = "gcp:compute/instance:Instance"
SERVICE = "gcp:cloudrunv2/service:Service"
FIREWALL = "gcp:compute/firewall:Firewall"
DROPLET = "digitalocean:index/droplet:Droplet"
COMMAND = "command:local:Command"

VM: dict[str, Any] = {
    "name": "vm",
    "machineType": "e2-medium",
    "bootDisk": {"initializeParams": {"image": "debian-cloud/debian-12"}},
    "networkInterfaces": [{"subnetwork": "s"}],
}
RUN: dict[str, Any] = {
    "name": "api",
    "location": "us-west1",
    "template": {"containers": [{"image": "one", "envs": [{"name": "A", "value": "1"}]}]},
}
RULES: dict[str, Any] = {
    "network": "n",
    "sourceRanges": ["10.0.0.0/24", "10.1.0.0/24"],
    "allows": [{"protocol": "tcp", "ports": ["22"]}, {"protocol": "icmp"}],
}


def changed(
    token: str, old: dict[str, Any], new: dict[str, Any], state: dict[str, Any] | None = None
) -> dict[str, str]:
    found = changes(load_facts(token.partition(":")[0]), token, old, new, state or {})
    return {change.property: change.kind + ("-replace" if change.replaces else "") for change in found}


@pytest.mark.parametrize(
    ("token", "old", "change", "expected"),
    [
        (INSTANCE, VM, {"labels": {"a": "b"}}, {"labels.a": "add"}),
        (INSTANCE, VM, {"metadata": {"user-data": "x"}}, {'metadata["user-data"]': "add"}),
        (INSTANCE, VM, {"machineType": "e2-small"}, {"machineType": "update"}),
        (INSTANCE, VM, {"name": "other"}, {"name": "update-replace"}),
        (
            INSTANCE,
            VM,
            {"bootDisk": {"initializeParams": {"image": "debian-cloud/debian-11"}}},
            {"bootDisk.initializeParams.image": "update-replace"},
        ),
        (
            INSTANCE,
            VM,
            {"bootDisk": {"initializeParams": {"image": "debian-cloud/debian-12", "size": 20}}},
            {"bootDisk.initializeParams.size": "add"},
        ),
        (
            INSTANCE,
            VM,
            {"networkInterfaces": [{"subnetwork": "s"}, {"subnetwork": "t"}]},
            {"networkInterfaces[1]": "add-replace"},
        ),
        (
            INSTANCE,
            VM,
            {"networkInterfaces": [{"subnetwork": "t"}]},
            {"networkInterfaces[0].subnetwork": "update"},
        ),
        (
            SERVICE,
            RUN,
            {"template": {"containers": [{"image": "two", "envs": [{"name": "A", "value": "1"}]}]}},
            {"template.containers[0].image": "update"},
        ),
        (SERVICE, RUN, {"location": "us-east1"}, {"location": "update-replace"}),
        (
            DROPLET,
            {"image": "i", "size": "s", "tags": ["a"]},
            {"userData": "#!"},
            {"userData": "add-replace"},
        ),
        (COMMAND, {"create": "true"}, {"triggers": [1]}, {"triggers": "add-replace"}),
        (COMMAND, {"create": "true", "triggers": [1]}, {"triggers": [2]}, {"triggers": "update-replace"}),
        (COMMAND, {"create": "true"}, {"create": "false"}, {"create": "update"}),
    ],
)
def test_a_change_is_found_at_its_path(
    token: str, old: dict[str, Any], change: dict[str, Any], expected: dict[str, str]
) -> None:
    assert changed(token, old, {**old, **change}) == expected


@pytest.mark.parametrize(
    ("token", "old", "new", "why"),
    [
        (SERVICE, RUN, {**RUN, "deletionProtection": True}, "a default written down is no change"),
        (SERVICE, RUN, {**RUN, "labels": {}}, "an empty map is none"),
        (
            FIREWALL,
            RULES,
            {**RULES, "sourceRanges": ["10.1.0.0/24", "10.0.0.0/24"], "allows": RULES["allows"][::-1]},
            "sets have no order",
        ),
        (FIREWALL, {**RULES, "direction": "INGRESS"}, RULES, "what the cloud fills in may be left out again"),
    ],
)
def test_what_means_the_same_is_no_change(
    token: str, old: dict[str, Any], new: dict[str, Any], why: str
) -> None:
    assert changed(token, old, new) == {}, why


def test_what_the_cloud_filled_in_is_compared_once_the_program_writes_it() -> None:
    assert changed(FIREWALL, RULES, {**RULES, "direction": "INGRESS"}, {"direction": "INGRESS"}) == {}
    assert changed(FIREWALL, RULES, {**RULES, "direction": "EGRESS"}, {"direction": "INGRESS"}) == {
        "direction": "update-replace"
    }


def test_a_rule_added_to_a_set_is_the_only_change() -> None:
    new = {**RULES, "allows": [{"protocol": "udp"}, *RULES["allows"]]}
    assert changed(FIREWALL, RULES, new) == {"allows[0]": "add"}


def test_every_replacing_input_replaces_and_no_other_does() -> None:
    for package in ("gcp", "digitalocean", "command"):
        facts = load_facts(package)
        for token, resource in facts.resources.items():
            for name, known in resource.inputs.items():
                if known.type == "string":
                    found = list(changes(facts, token, {name: "a"}, {name: "b"}, {}))
                    assert [change.replaces for change in found] == [known.replace], f"{token} {name}"


def test_a_name_is_chosen_once_and_kept() -> None:
    facts = load_facts("gcp").resources[FIREWALL]
    urn = "urn:pulumi:s::p::gcp:compute/firewall:Firewall::Gateway"
    first = with_name(facts, {}, {}, urn, b"seed", "")
    assert first["name"] == chosen_name(urn, b"seed")
    assert first["name"].startswith("gateway-")
    assert with_name(facts, {"priority": 1}, first, urn, b"other", "")["name"] == first["name"]
    assert not fixed_name(facts, first), "a chosen name leaves room for a replacement beside the old one"


def test_a_name_of_the_programs_own_is_left_alone_and_replaced_delete_first() -> None:
    facts = load_facts("gcp").resources[FIREWALL]
    own = with_name(facts, {"name": "mine"}, {"name": "x-123", "__defaults": ["name"]}, "u::n", b"", "")
    assert own["name"] == "mine"
    assert fixed_name(facts, own)


def test_a_name_proposed_by_the_project_is_taken() -> None:
    facts = load_facts("gcp").resources[FIREWALL]
    assert with_name(facts, {}, {}, "u::n", b"", "proposed")["name"] == "proposed"


def test_a_type_whose_name_is_required_gets_none() -> None:
    facts = load_facts("gcp").resources["gcp:secretmanager/secret:Secret"]
    assert "name" not in with_name(facts, {}, {}, "u::n", b"", "")
