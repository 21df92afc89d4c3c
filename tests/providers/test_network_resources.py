"""Networks, subnets, addresses, NAT and connectors: what Google refuses at `up`, in its words."""

from __future__ import annotations

from typing import Any

import pytest

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import (
    ADDRESS,
    CONNECTION,
    CONNECTOR,
    FIREWALL,
    GLOBAL_ADDRESS,
    NETWORK,
    ROUTER,
    ROUTER_NAT,
    SUBNETWORK,
)
from tests.providers.conftest import Declared, refusals

NET = "projects/local/global/networks/net"
SUBNET = "projects/local/regions/us-west1/subnetworks/subnet"


@pytest.fixture
async def network(declared: Declared) -> Declared:
    """A network with one subnet."""
    await declared(NETWORK, name="net", autoCreateSubnetworks=False)
    await declared(SUBNETWORK, name="subnet", network=NET, ipCidrRange="127.57.0.0/24")
    return declared


async def test_a_network_has_the_links_that_programs_read(declared: Declared) -> None:
    made = await declared(NETWORK, name="net", autoCreateSubnetworks=False)
    assert made.id == NET
    assert made.outputs["selfLink"] == f"https://www.googleapis.com/compute/v1/{NET}"
    assert made.outputs["project"] == "local"


async def test_a_name_in_use_is_refused(network: Declared) -> None:
    with pytest.raises(CloudError) as refused:
        await network(NETWORK, name="net", autoCreateSubnetworks=False)
    assert refused.value.status == 409
    assert refused.value.message == f"The resource '{NET}' already exists"
    assert refused.value.reason == "alreadyExists"


@pytest.mark.parametrize(
    ("token", "inputs", "status", "words"),
    [
        (
            SUBNETWORK,
            {"name": "b", "network": "nowhere", "ipCidrRange": "127.57.2.0/24"},
            404,
            "nowhere' was not",
        ),
        (
            SUBNETWORK,
            {"name": "b", "network": NET, "ipCidrRange": "127.57.0.128/25"},
            400,
            "127.57.0.128/25 conflicts with existing subnetwork 'subnet' in region 'us-west1'",
        ),
        (SUBNETWORK, {"name": "b", "network": NET, "ipCidrRange": "10.0.0.0/24"}, 400, "127.57.0.0/17"),
        (SUBNETWORK, {"name": "b", "network": NET, "ipCidrRange": "127.57.2.0/30"}, 400, "/29 or larger"),
        (
            SUBNETWORK,
            {"name": "b", "network": NET, "ipCidrRange": "127.57.2.0/24", "region": "us-west9"},
            404,
            "projects/local/regions/us-west9' was not found",
        ),
        (
            FIREWALL,
            {"name": "f", "network": NET, "sourceRanges": ["127.57.0.0/24"], "allows": [{"protocol": "tpc"}]},
            400,
            "allowed[0].IPProtocol': 'tpc'",
        ),
        (
            FIREWALL,
            {
                "name": "f",
                "network": NET,
                "sourceRanges": ["127.57.0.0/24"],
                "denies": [{"protocol": "tcp", "ports": ["4002-4001"]}],
            },
            400,
            "denied[0].ports[0]': '4002-4001'",
        ),
        (
            FIREWALL,
            {"name": "f", "network": NET, "sourceRanges": ["127.57.0.1/24"], "allows": [{"protocol": "tcp"}]},
            400,
            "Must be a valid CIDR",
        ),
        (
            FIREWALL,
            {"name": "f", "network": NET, "sourceTags": ["A b"], "allows": [{"protocol": "all"}]},
            400,
            "sourceTags[0]': 'A b'",
        ),
        (ADDRESS, {"name": "a", "addressType": "INTERNAL"}, 400, "needs a subnetwork"),
        (
            ADDRESS,
            {"name": "a", "addressType": "INTERNAL", "subnetwork": SUBNET, "address": "127.57.3.4"},
            400,
            "not in the range of subnetwork",
        ),
        (
            ADDRESS,
            {"name": "a", "addressType": "INTERNAL", "subnetwork": SUBNET, "address": "127.57.0.1"},
            400,
            "reserved by the network",
        ),
        (ROUTER, {"name": "r", "network": "nowhere"}, 404, "networks/nowhere' was not found"),
        (
            ROUTER_NAT,
            {"name": "n", "router": "r", "sourceSubnetworkIpRangesToNat": "ALL_SUBNETWORKS_ALL_IP_RANGES"},
            404,
            "routers/r' was not found",
        ),
        (CONNECTOR, {"name": "c", "subnet": {"name": "subnet"}}, 400, "has a /24 netmask: it must be /28"),
        (CONNECTOR, {"name": "c", "network": NET, "ipCidrRange": "127.57.8.0/27"}, 400, "must be /28"),
        (CONNECTOR, {"name": "a-b-c-d-e-f-g-h", "subnet": {"name": "subnet"}}, 400, "at most 20 characters"),
        (CONNECTOR, {"name": "c", "subnet": {"name": "x"}}, 404, "subnetworks/x' was not found"),
        (
            CONNECTION,
            {"network": NET, "service": "servicenetworking.googleapis.com", "reservedPeeringRanges": ["x"]},
            404,
            "addresses/x' was not found",
        ),
    ],
)
async def test_what_google_would_refuse_is_refused(
    network: Declared, token: str, inputs: dict[str, Any], status: int, words: str
) -> None:
    with pytest.raises(CloudError) as refused:
        await network(token, **inputs)
    assert refused.value.status == status
    assert words in refused.value.message
    assert not network.provider.cloud.store.all(token)[1:], "what is refused must not exist"


async def test_a_network_in_use_cannot_be_deleted(network: Declared) -> None:
    with pytest.raises(CloudError) as refused:
        await network.handler(NETWORK).delete(NET)
    assert refused.value.reason == "resourceInUseByAnotherResource"
    assert SUBNET in refused.value.message
    await network.handler(SUBNETWORK).delete(SUBNET)
    await network.handler(NETWORK).delete(NET)
    assert not network.provider.cloud.store.all(NETWORK)


async def test_deleting_twice_is_no_error(network: Declared) -> None:
    await network.handler(SUBNETWORK).delete(SUBNET)
    await network.handler(SUBNETWORK).delete(SUBNET)


async def test_a_range_is_widened_in_place_and_narrowed_by_replacement(network: Declared) -> None:
    replacing = network.handler(SUBNETWORK).replacing
    assert replacing({"ipCidrRange": "127.57.0.0/24"}, {"ipCidrRange": "127.57.0.0/23"}) == set()
    assert replacing({"ipCidrRange": "127.57.0.0/24"}, {"ipCidrRange": "127.57.0.0/25"}) == {"ipCidrRange"}


async def test_a_firewall_without_any_source_is_refused_at_preview(declared: Declared) -> None:
    rule = {"network": "n", "allows": [{"protocol": "tcp"}]}
    assert list(refusals(declared, FIREWALL, rule)) == ["sourceRanges"]
    assert not list(refusals(declared, FIREWALL, {**rule, "direction": "EGRESS"}))


async def test_an_auto_mode_network_is_refused_at_preview(declared: Declared) -> None:
    assert list(refusals(declared, NETWORK, {})) == ["autoCreateSubnetworks"]


async def test_another_project_is_refused_at_preview(declared: Declared) -> None:
    assert "project" in list(refusals(declared, ROUTER, {"project": "my-real-project"}))


async def test_an_internal_address_is_reserved_in_its_subnet(network: Declared) -> None:
    first = await network(ADDRESS, name="a", addressType="INTERNAL", subnetwork=SUBNET)
    second = await network(ADDRESS, name="b", addressType="INTERNAL", subnetwork=SUBNET)
    assert first.outputs["address"] == "127.57.0.2"
    assert second.outputs["address"] == "127.57.0.3"
    with pytest.raises(CloudError, match="already being used"):
        await network(ADDRESS, name="c", addressType="INTERNAL", subnetwork=SUBNET, address="127.57.0.3")


async def test_a_nat_needs_its_router_and_an_external_address(network: Declared) -> None:
    await network(ROUTER, name="r", network=NET)
    outside = await network(ADDRESS, name="out")
    inside = await network(ADDRESS, name="in", addressType="INTERNAL", subnetwork=SUBNET)
    nat = {
        "name": "nat",
        "router": "r",
        "natIpAllocateOption": "MANUAL_ONLY",
        "sourceSubnetworkIpRangesToNat": "LIST_OF_SUBNETWORKS",
        "subnetworks": [{"name": SUBNET, "sourceIpRangesToNats": ["ALL_IP_RANGES"]}],
    }
    assert list(refusals(network, ROUTER_NAT, nat)) == ["natIps"]
    with pytest.raises(CloudError, match="must be an external one"):
        await network(ROUTER_NAT, **nat, natIps=[inside.outputs["selfLink"]])
    made = await network(ROUTER_NAT, **nat, natIps=[outside.outputs["selfLink"]])
    assert made.id == "local/us-west1/r/nat"
    with pytest.raises(CloudError, match="already being used"):
        await network.handler(ADDRESS).delete(outside.id)
    with pytest.raises(CloudError, match="already being used"):
        await network.handler(ROUTER).delete("projects/local/regions/us-west1/routers/r")
    await network.handler(ROUTER_NAT).delete(made.id)
    await network.handler(ADDRESS).delete(outside.id)


async def test_a_connector_is_ready_on_its_own_28(network: Declared) -> None:
    await network(SUBNETWORK, name="run", network=NET, ipCidrRange="127.57.1.0/28")
    made = await network(CONNECTOR, name="run", subnet={"name": "run"}, minInstances=2, maxInstances=3)
    assert made.id == "projects/local/locations/us-west1/connectors/run"
    assert made.outputs["state"] == "READY"
    with pytest.raises(CloudError, match="is already used by"):
        await network(CONNECTOR, name="other", subnet={"name": "run"})
    with pytest.raises(CloudError, match="already being used"):
        await network.handler(SUBNETWORK).delete("projects/local/regions/us-west1/subnetworks/run")


@pytest.mark.parametrize(("low", "high"), [(1, 3), (2, 11), (3, 3)])
async def test_a_connectors_instances_are_between_2_and_10(network: Declared, low: int, high: int) -> None:
    await network(SUBNETWORK, name="run", network=NET, ipCidrRange="127.57.1.0/28")
    with pytest.raises(CloudError, match="between 2 and 10"):
        await network(CONNECTOR, name="run", subnet={"name": "run"}, minInstances=low, maxInstances=high)


async def test_service_networking_takes_a_reserved_range_of_its_network(network: Declared) -> None:
    reserved = {"name": "services", "purpose": "VPC_PEERING", "addressType": "INTERNAL", "network": NET}
    with pytest.raises(CloudError, match="conflicts with"):
        await network(GLOBAL_ADDRESS, **reserved, address="127.57.0.0", prefixLength=24)
    made = await network(GLOBAL_ADDRESS, **reserved, prefixLength=20)
    assert made.outputs["address"] == "127.57.112.0", "the highest free range"
    peering = {"network": NET, "service": "servicenetworking.googleapis.com"}
    connection = await network(CONNECTION, **peering, reservedPeeringRanges=["services"])
    assert connection.outputs["peering"] == "servicenetworking-googleapis-com"
    with pytest.raises(CloudError, match="Cannot modify allocated ranges"):
        await network(CONNECTION, **peering, reservedPeeringRanges=["services"])
    taken_over = await network(
        CONNECTION, **peering, reservedPeeringRanges=["services"], updateOnCreationFail=True
    )
    assert taken_over.id == connection.id


async def test_a_resource_with_the_policy_prevent_is_not_deleted(declared: Declared) -> None:
    await declared(NETWORK, name="net", autoCreateSubnetworks=False, deletionPolicy="PREVENT")
    with pytest.raises(CloudError, match="deletion_policy=DELETE"):
        await declared.handler(NETWORK).delete(NET)


async def test_an_abandoned_resource_stays_in_the_cloud(declared: Declared) -> None:
    await declared(NETWORK, name="net", autoCreateSubnetworks=False, deletionPolicy="ABANDON")
    await declared.handler(NETWORK).delete(NET)
    assert declared.provider.cloud.store.get(NETWORK, NET)


async def test_updating_what_is_gone_says_so(declared: Declared) -> None:
    with pytest.raises(CloudError) as refused:
        await declared.handler(NETWORK).update(NET, {"name": "net", "autoCreateSubnetworks": False})
    assert refused.value.status == 404


@pytest.mark.parametrize("labels", [{"Stack": "local"}, {"stack": "Local"}, {"stack": "x" * 64}, {"1": "a"}])
async def test_labels_that_google_cannot_keep_are_refused(declared: Declared, labels: dict[str, str]) -> None:
    with pytest.raises(CloudError, match="Labels can only contain lowercase"):
        await declared(ADDRESS, name="a", labels=labels)
