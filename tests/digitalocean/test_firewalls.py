"""Firewalls as records: what is refused, and how they are kept. What passes is the network's part."""

from __future__ import annotations

import pytest

from localcloud.cloud import CloudError
from localcloud.digitalocean import Delays, DigitalOcean, firewall_inputs, firewall_request

RULES = {
    "inbound_rules": [{"protocol": "tcp", "ports": "5000", "sources": {"addresses": ["127.21.128.2/32"]}}],
    "outbound_rules": [
        {"protocol": "tcp", "ports": "0", "destinations": {"addresses": ["0.0.0.0/0", "::/0"]}},
        {"protocol": "icmp", "destinations": {"addresses": ["0.0.0.0/0"]}},
    ],
}


def firewall(**changes: object) -> dict[str, object]:
    return {"name": "ibeam", "droplet_ids": [], "tags": [], **RULES, **changes}


def test_the_providers_properties_and_the_apis_document_say_the_same(account):
    assert firewall_request(firewall_inputs(firewall())) == firewall()
    assert firewall_inputs(firewall())["outboundRules"][0]["portRange"] == "all"


def test_a_change_waits_a_moment_and_then_holds(cloud):
    account = DigitalOcean(cloud, Delays(firewall=60))
    created = account.firewalls.create(firewall())
    assert created["status"] == "waiting"
    assert DigitalOcean(cloud, Delays(firewall=0)).firewalls.get(created["id"])["status"] == "succeeded"
    assert cloud.network.changes == 1


def test_names_are_unique(account):
    created = account.firewalls.create(firewall())
    with pytest.raises(CloudError, match="duplicate name") as caught:
        account.firewalls.create(firewall())
    assert caught.value.status == 409
    account.firewalls.update(created["id"], firewall(tags=[]))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"droplet_ids": list(range(1, 12))}, "10 droplets at most"),
        ({"droplet_ids": [7]}, "droplet 7 not found"),
        ({"tags": ["nobody"]}, "tag nobody not found"),
        ({"inbound_rules": [], "outbound_rules": []}, "at least one"),
        ({"name": "a b"}, "names"),
        ({"inbound_rules": [{"protocol": "gre", "sources": {"addresses": ["0.0.0.0/0"]}}]}, "protocol"),
        (
            {"inbound_rules": [{"protocol": "tcp", "ports": "1", "sources": {"addresses": ["x"]}}]},
            "invalid address",
        ),
        (
            {"inbound_rules": [{"protocol": "tcp", "ports": "9-1", "sources": {"addresses": ["::/0"]}}]},
            "ports",
        ),
        ({"inbound_rules": [{"protocol": "tcp", "ports": "22", "sources": {}}]}, "sources"),
    ],
)
def test_what_the_real_api_refuses_is_refused_with_422(account, changes, words):
    with pytest.raises(CloudError, match=words) as caught:
        account.firewalls.create(firewall(**changes))
    assert caught.value.status == 422


def test_an_unknown_firewall_is_not_found(account):
    for call in (account.firewalls.get, account.firewalls.delete):
        with pytest.raises(CloudError) as caught:
            call("nothing")
        assert caught.value.status == 404
