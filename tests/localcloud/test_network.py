"""Who reaches whom, decided without a socket: `allowed` is a function of what is declared.

That the listeners ask it, and know their callers, is tested in test_edge.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localcloud.network import IAP, INTERNET, allowed, reaches_google
from localcloud.topology import (
    Connector,
    DropletFirewall,
    DropletRule,
    FirewallRule,
    Nat,
    Place,
    Subnet,
    Topology,
)

TCP_4001 = (("tcp", 4001, 4002),)
GATEWAY = Place("gce/gateway", "gce", "127.20.1.5", "vpc", "subnet", frozenset({"gateway"}), "gw@x")
OTHER = Place("gce/other", "gce", "127.20.1.6", "vpc", "subnet", service_account="other@x")
STRANGER = Place("gce/stranger", "gce", "127.20.9.5", "elsewhere", "theirs")
SERVICE = Place("run/api/1", "run", connector="connector", egress="ALL_TRAFFIC")
LOOSE = Place("run/loose/1", "run")
DATABASE = Place("sql/db", "sql", "127.20.16.3", "vpc")
DROPLET = Place("droplet/7", "droplet", "127.20.128.7", tags=frozenset({"ibeam"}))
NAT = Nat("nat", "vpc", ("127.20.128.2",))
INGRESS = FirewallRule("in", "vpc", True, TCP_4001, source_ranges=("127.20.8.0/28",), priority=900)
DENY = FirewallRule("no", "vpc", False, (("all", 0, 65535),), source_ranges=("127.20.8.0/28",), priority=950)
ONLY_NAT = DropletFirewall(
    "wall",
    frozenset({"ibeam"}),
    frozenset(),
    (DropletRule((("tcp", 5000, 5000),), ("127.20.128.2/32",)),),
    (DropletRule((("tcp", 443, 443),), ("0.0.0.0/0",)),),
)
PLACES = (GATEWAY, OTHER, STRANGER, SERVICE, LOOSE, DATABASE, DROPLET)
TOPOLOGY = Topology(
    places={place.name: place for place in PLACES},
    rules=(INGRESS, DENY),
    subnets=(Subnet("subnet", "vpc", "127.20.1.0/24", True), Subnet("theirs", "elsewhere", "127.20.9.0/24")),
    nats=(NAT,),
    connectors=(Connector("connector", "vpc", "127.20.8.0/28", "connector-subnet"),),
    droplet_firewalls=(ONLY_NAT,),
    service_networks=frozenset({"vpc"}),
    private_ranges=("127.20.0.0/17",),
)


@pytest.mark.parametrize(
    ("source", "destination", "port", "expected", "because"),
    [
        ("run/api/1", "gce/gateway", 4001, True, "the rule at 900 lets the connector in"),
        ("run/api/1", "127.20.1.5", 4002, True, "an address means the machine that has it"),
        ("run/api/1", "gce/gateway", 22, False, "the rule at 950 denies the rest of the connector's range"),
        ("gce/other", "gce/gateway", 4001, False, "ingress is denied unless a rule allows it"),
        ("gce/gateway", "gce/gateway", 14001, True, "a machine reaches itself"),
        ("gce/stranger", "gce/gateway", 4001, False, "another network has no route"),
        ("run/loose/1", "gce/gateway", 4001, False, "without a connector there is no way into the VPC"),
        (INTERNET, "gce/gateway", 4001, False, "it has no external address"),
        (IAP, "gce/gateway", 4001, False, "no rule names IAP's range"),
        ("run/api/1", "sql/db", 5432, True, "the network is peered with Google's services"),
        ("gce/other", "sql/db", 5432, True, "any machine of the network reaches a private database"),
        ("gce/stranger", "sql/db", 5432, False, "another network is not peered"),
        ("run/loose/1", "sql/db", 5432, False, "a private address needs the VPC"),
        (INTERNET, "sql/db", 5432, False, "it has no public address"),
        ("droplet/7", "sql/db", 5432, False, "a droplet is on the internet"),
        ("run/api/1", "droplet/7", 5000, True, "all egress leaves through the NAT's address"),
        ("run/loose/1", "droplet/7", 5000, False, "its address is one of Google's pool"),
        (INTERNET, "droplet/7", 5000, False, "the firewall admits the NAT's address only"),
        ("run/api/1", "droplet/7", 22, False, "the firewall admits port 5000 only"),
        ("droplet/7", "198.51.100.7", 443, True, "an outbound rule allows it"),
        ("droplet/7", "198.51.100.7", 80, False, "no outbound rule names port 80"),
        ("gce/gateway", "198.51.100.7", 4000, True, "the NAT covers its subnetwork"),
        ("gce/stranger", "198.51.100.7", 4000, False, "no NAT and no external address"),
        (INTERNET, "run/api/1", 8080, True, "a service's front is public; IAM decides behind it"),
        ("sql/db", "gce/gateway", 4001, False, "a managed database opens no connections"),
    ],
)
def test_a_connection_is_decided_as_in_the_real_clouds(
    source: str, destination: str, port: int, expected: bool, because: str
) -> None:
    verdict = allowed(TOPOLOGY, source, destination, port)
    assert verdict.allowed is expected, f"{because}; the verdict says: {verdict.why}"


def test_without_rules_of_its_own_the_connector_reaches_every_machine() -> None:
    bare = replace(TOPOLOGY, rules=())
    verdict = allowed(bare, "run/api/1", "gce/gateway", 22)
    assert verdict.allowed, "Google's hidden rule at 1000 opens the VPC to the connector"
    assert "hidden rule" in verdict.why
    assert not allowed(replace(TOPOLOGY, rules=(DENY,)), "run/api/1", "gce/gateway", 4001).allowed


def test_a_denial_wins_over_an_allowance_of_the_same_priority() -> None:
    level = replace(DENY, priority=900)
    assert not allowed(replace(TOPOLOGY, rules=(INGRESS, level)), "run/api/1", "gce/gateway", 4001).allowed


def test_source_tags_and_service_accounts_count_inside_the_network_only() -> None:
    by_account = FirewallRule("a", "vpc", True, TCP_4001, source_accounts=frozenset({"other@x"}))
    topology = replace(TOPOLOGY, rules=(by_account,))
    assert allowed(topology, "gce/other", "gce/gateway", 4001).allowed
    assert not allowed(topology, "gce/stranger", "gce/gateway", 4001).allowed


def test_iap_reaches_what_its_range_is_allowed_to() -> None:
    rule = FirewallRule("iap", "vpc", True, (("tcp", 22, 22),), source_ranges=("35.235.240.0/20",))
    topology = replace(TOPOLOGY, rules=(rule,))
    assert allowed(topology, IAP, "gce/gateway", 22).allowed
    assert not allowed(topology, IAP, "gce/gateway", 4001).allowed
    assert not allowed(topology, IAP, "droplet/7", 22).allowed, "IAP forwards to Compute Engine only"


def test_an_egress_rule_can_close_the_way_out() -> None:
    closed = FirewallRule("shut", "vpc", False, (("tcp", 0, 65535),), direction="EGRESS")
    topology = replace(TOPOLOGY, rules=(closed, INGRESS))
    assert not allowed(topology, "gce/gateway", "198.51.100.7", 443).allowed
    assert not allowed(topology, "run/api/1", "gce/gateway", 4001).allowed, "the connector leaves by it, too"


def test_a_nat_for_listed_subnetworks_covers_no_other() -> None:
    partial = replace(TOPOLOGY, nats=(replace(NAT, subnets=frozenset({"connector-subnet"})),))
    assert allowed(partial, "run/api/1", "198.51.100.7", 443).allowed
    assert not allowed(partial, "gce/gateway", "198.51.100.7", 443).allowed


def test_a_network_without_a_default_route_reaches_no_internet() -> None:
    cut_off = replace(TOPOLOGY, networks_without_internet=frozenset({"vpc"}))
    assert not allowed(cut_off, "gce/gateway", "198.51.100.7", 443).allowed
    assert allowed(cut_off, "run/api/1", "gce/gateway", 4001).allowed


def test_private_google_access_or_a_nat_leads_to_googles_apis() -> None:
    assert reaches_google(TOPOLOGY, "gce/gateway").allowed
    assert not reaches_google(TOPOLOGY, "gce/stranger").allowed


def test_a_droplet_without_a_firewall_is_open() -> None:
    assert allowed(replace(TOPOLOGY, droplet_firewalls=()), INTERNET, "droplet/7", 22).allowed


def test_a_firewall_without_outbound_rules_locks_its_droplets_in() -> None:
    shut = replace(ONLY_NAT, outbound=())
    assert not allowed(replace(TOPOLOGY, droplet_firewalls=(shut,)), "droplet/7", "198.51.100.7", 443).allowed


ranges = st.sampled_from(["127.20.8.0/28", "127.20.1.0/24", "0.0.0.0/0", "10.0.0.0/8"])
rules = st.builds(
    FirewallRule,
    name=st.text("abc", min_size=1, max_size=3),
    network=st.just("vpc"),
    allow=st.booleans(),
    ports=st.sampled_from([TCP_4001, (("all", 0, 65535),), (("udp", 4001, 4001),), (("tcp", 22, 22),)]),
    priority=st.integers(0, 65535),
    source_ranges=st.lists(ranges, min_size=1, max_size=2).map(tuple),
    target_tags=st.sampled_from([frozenset(), frozenset({"gateway"}), frozenset({"other"})]),
)


@given(st.lists(rules.map(lambda rule: replace(rule, allow=False)), max_size=5), st.integers(1, 65535))
def test_nothing_comes_in_when_no_rule_allows(denials: list[FirewallRule], port: int) -> None:
    topology = replace(TOPOLOGY, rules=tuple(denials))
    assert not allowed(topology, "gce/other", "gce/gateway", port).allowed


@given(st.lists(rules, max_size=5), st.booleans())
def test_the_lowest_priority_number_decides(others: list[FirewallRule], allow: bool) -> None:
    first = FirewallRule(
        "first", "vpc", allow, (("all", 0, 65535),), priority=0, source_ranges=("0.0.0.0/0",)
    )
    later = tuple(replace(rule, priority=max(1, rule.priority)) for rule in others)
    for order in ((first, *later), (*later, first)):
        verdict = allowed(replace(TOPOLOGY, rules=order), "run/api/1", "gce/gateway", 4001)
        assert verdict.allowed is allow, "the order of declaration must not matter, only the priority"


@given(st.lists(rules, max_size=5))
def test_a_disallowed_connection_stays_so_when_a_denial_is_added(declared: list[FirewallRule]) -> None:
    before = allowed(replace(TOPOLOGY, rules=tuple(declared)), "gce/other", "gce/gateway", 4001)
    denied = (*declared, replace(DENY, source_ranges=("0.0.0.0/0",)))
    after = allowed(replace(TOPOLOGY, rules=denied), "gce/other", "gce/gateway", 4001)
    assert before.allowed or not after.allowed
