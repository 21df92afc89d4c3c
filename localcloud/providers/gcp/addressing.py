"""Reserved addresses, routers and NAT."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import (
    ADDRESS,
    GLOBAL_ADDRESS,
    INSTANCE,
    ROUTER,
    ROUTER_NAT,
    GcpHandler,
    in_use,
    invalid,
    plain,
    reference,
    self_link,
)
from localcloud.providers.gcp.network import network_ranges, verify_free_range, verify_local_range
from localcloud.providers.resource import now
from localcloud.providers.schema import Failure
from localcloud.state import Resource

ADDRESS_PATTERN = "projects/{project}/regions/{region}/addresses/{name}"


class Address(GcpHandler):
    """A regional address: external ones are the local cloud's to give, internal ones of a subnet."""

    token = ADDRESS
    id_format = ADDRESS_PATTERN
    noun = "Address"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        if inputs["addressType"] != "INTERNAL":
            if inputs.get("subnetwork") or inputs.get("network"):
                raise invalid("subnetwork", inputs.get("subnetwork"), "An external address has no subnetwork")
            return
        if not inputs.get("subnetwork"):
            raise invalid("subnetwork", "", "An internal address needs a subnetwork")
        subnet = self.subnetwork(inputs["subnetwork"], inputs)
        if subnet.outputs["region"] != inputs["region"]:
            raise invalid("subnetwork", subnet.id, f"It is not in region '{inputs['region']}'")
        if inputs.get("address") and old is None:
            verify_member(inputs["address"], subnet, "address")

    async def started(self, resource: Resource) -> None:
        out, owner = resource.outputs, address_owner(resource.id)
        if out["addressType"] == "EXTERNAL":
            out["address"] = self.cloud.addresses.allocate_public(owner)
            out["networkTier"] = out.get("networkTier") or "PREMIUM"
            return
        subnet = self.subnetwork(out["subnetwork"], out)
        if out.get("address"):
            self.cloud.addresses.claim(out["address"], owner)
        else:
            out["address"] = self.cloud.addresses.allocate_in(subnet.outputs["ipCidrRange"], owner)
        out["subnetwork"] = subnet.outputs["selfLink"]
        out["purpose"] = out.get("purpose") or "GCE_ENDPOINT"

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        if old:
            return {}
        return {
            "addressId": resource_id,
            "creationTimestamp": now(),
            "labelFingerprint": "42WmSpB8rSM=",
            "prefixLength": 0,
            "selfLink": self_link(resource_id),
            "users": [],
        }

    def verify_delete(self, resource: Resource) -> None:
        user = user_of(self, resource)
        if user is not None:
            raise in_use("address", resource.id, user)

    async def stopped(self, resource: Resource) -> None:
        self.cloud.addresses.release(address_owner(resource.id))


def address_owner(resource_id: str) -> str:
    """Under which name the local cloud's addresses are held for a reservation."""
    return f"address/{resource_id}"


def verify_member(address: str, subnet: Resource, field: str) -> None:
    """Refuse an address outside of a subnetwork, or one of the four that Google keeps."""
    cidr = ipaddress.ip_network(subnet.outputs["ipCidrRange"])
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        raise invalid(field, address, "Must be a valid IP address") from None
    if number not in cidr:
        raise invalid(field, address, f"IP address is not in the range of subnetwork '{subnet.id}' ({cidr})")
    if number in (cidr[0], cidr[1], cidr[-1], cidr[-2]):
        raise invalid(field, address, "IP address is reserved by the network")


def user_of(handler: GcpHandler, address: Resource) -> str | None:
    """Who uses a reserved address: an instance or a NAT."""
    for instance in handler.cloud.store.all(INSTANCE):
        for nic in instance.outputs.get("networkInterfaces") or []:
            outside = [c.get("natIp") for c in nic.get("accessConfigs") or []]
            if address.outputs["address"] in (nic.get("networkIp"), *outside):
                return instance.id
    for nat in handler.cloud.store.all(ROUTER_NAT):
        for written in nat.outputs.get("natIps") or []:
            if reference(written, ADDRESS_PATTERN, nat.outputs) == address.id:
                return f"{nat.outputs['router']}/nats/{nat.outputs['name']}"
    return None


class GlobalAddress(GcpHandler):
    """A global address, or a range reserved for the peering with Google's services."""

    token = GLOBAL_ADDRESS
    id_format = "projects/{project}/global/addresses/{name}"
    noun = "GlobalAddress"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if inputs.get("purpose") != "VPC_PEERING" or old is not None:
            return
        if inputs["addressType"] != "INTERNAL":
            raise invalid("addressType", inputs["addressType"], "A range for VPC_PEERING is INTERNAL")
        if not inputs.get("network"):
            raise invalid("network", "", "A range for VPC_PEERING needs a network")
        if not inputs.get("prefixLength"):
            raise invalid("prefixLength", "", "A range for VPC_PEERING needs a prefix length")
        network = self.network(inputs["network"], inputs)
        if inputs.get("address"):
            cidr = f"{inputs['address']}/{inputs['prefixLength']}"
            verify_local_range(self.cloud, cidr)
            verify_free_range(self.cloud, network.id, cidr, self.identify(inputs))

    async def started(self, resource: Resource) -> None:
        out = resource.outputs
        if out.get("purpose") != "VPC_PEERING":
            out["address"] = self.cloud.addresses.allocate_public(address_owner(resource.id))
            return
        network = self.network(out["network"], out)
        if not out.get("address"):
            out["address"] = self._free_range(network.id, out["prefixLength"], resource.id)
        out["network"] = network.outputs["selfLink"]

    def _free_range(self, network: str, prefix: int, own: str) -> str:
        """The highest free range: subnets are written from below."""
        ours = ipaddress.IPv4Network(f"{self.cloud.settings.network}.0.0/17")
        taken = [ipaddress.ip_network(c) for r, c in network_ranges(self.cloud, network) if r.id != own]
        if prefix >= ours.prefixlen:
            for candidate in reversed(list(ours.subnets(new_prefix=prefix))):
                if not any(candidate.overlaps(t) for t in taken):
                    return str(candidate.network_address)
        raise CloudError(400, f"There is no free range of /{prefix} in {ours}.", "IP_SPACE_EXHAUSTED")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        if old:
            return {}
        return {
            "creationTimestamp": now(),
            "labelFingerprint": "42WmSpB8rSM=",
            "selfLink": self_link(resource_id),
        }

    async def stopped(self, resource: Resource) -> None:
        self.cloud.addresses.release(address_owner(resource.id))


class Router(GcpHandler):
    """A Cloud Router: what a NAT hangs on."""

    token = ROUTER
    id_format = "projects/{project}/regions/{region}/routers/{name}"
    noun = "Router"
    shapes_network = True

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        if inputs.get("network"):
            self.network(inputs["network"], inputs)

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        found = {"selfLink": self_link(resource_id)}
        if inputs.get("network"):
            found["network"] = self.network(inputs["network"], inputs).outputs["selfLink"]
        if not old:
            found["creationTimestamp"] = now()
        return found

    def verify_delete(self, resource: Resource) -> None:
        for nat in self.cloud.store.all(ROUTER_NAT):
            if plain(nat.outputs["router"]) == resource.outputs["name"]:
                raise in_use("router", resource.id, f"{resource.id}/nats/{nat.outputs['name']}")


class RouterNat(GcpHandler):
    """A Cloud NAT: the way out for what has no external address."""

    token = ROUTER_NAT
    id_format = "{project}/{region}/{router}/{name}"
    noun = "RouterNat"
    shapes_network = True

    def identify(self, inputs: dict[str, Any]) -> str:
        return self.id_format.format_map({**inputs, "router": plain(inputs["router"])})

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        manual = inputs.get("natIpAllocateOption") == "MANUAL_ONLY"
        if manual and not inputs.get("natIps") and not inputs.get("initialNatIps"):
            yield Failure("natIps", "nat_ips must be set if nat_ip_allocate_option is MANUAL_ONLY")
        listed = inputs.get("sourceSubnetworkIpRangesToNat") == "LIST_OF_SUBNETWORKS"
        if inputs.get("subnetworks") and not listed:
            yield Failure(
                "subnetworks",
                "subnetworks may be given only when source_subnetwork_ip_ranges_to_nat is "
                "LIST_OF_SUBNETWORKS",
            )

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        self.find(ROUTER, inputs["router"], Router.id_format, inputs)
        for i, written in enumerate(inputs.get("natIps") or []):
            found = self.find(ADDRESS, written, ADDRESS_PATTERN, inputs)
            if found.outputs["addressType"] != "EXTERNAL":
                raise invalid(f"nats[0].natIps[{i}]", written, "The address must be an external one")
        for subnet in inputs.get("subnetworks") or []:
            self.subnetwork(subnet["name"], inputs)
        own = old.id if old else ""
        for other in self.cloud.store.all(ROUTER_NAT):
            same = plain(other.outputs["router"]) == plain(inputs["router"]) and other.id != own
            if same and "LIST_OF_SUBNETWORKS" not in (
                other.outputs["sourceSubnetworkIpRangesToNat"],
                inputs["sourceSubnetworkIpRangesToNat"],
            ):
                raise invalid(
                    "nats", inputs["name"], f"NAT '{other.outputs['name']}' covers the same subnetworks"
                )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "minPortsPerVm": inputs.get("minPortsPerVm") or 0,
            "endpointTypes": inputs.get("endpointTypes") or ["ENDPOINT_TYPE_VM"],
            "enableDynamicPortAllocation": bool(inputs.get("enableDynamicPortAllocation")),
            "enableEndpointIndependentMapping": bool(inputs.get("enableEndpointIndependentMapping")),
            "autoNetworkTier": inputs.get("autoNetworkTier") or "PREMIUM",
        }

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return invalid("nats", inputs["name"], "Router NAT with this name already exists")

    async def stopped(self, resource: Resource) -> None:
        self.cloud.addresses.release(f"nat/{resource.outputs['name']}")


HANDLERS = (Address, GlobalAddress, Router, RouterNat)
