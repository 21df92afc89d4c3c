"""Ways between Google's managed services and a VPC: the serverless connector and service networking."""

from __future__ import annotations

import ipaddress
import re
from typing import Any
from urllib.parse import quote

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import (
    CONNECTION,
    CONNECTOR,
    GLOBAL_ADDRESS,
    INSTANCE,
    SQL_INSTANCE,
    GcpHandler,
    reference,
)
from localcloud.providers.gcp.catalog import CONNECTOR_MACHINE_TYPES
from localcloud.providers.gcp.network import (
    NETWORK_PATTERN,
    uses_subnetwork,
    verify_free_range,
    verify_local_range,
)
from localcloud.providers.resource import not_found
from localcloud.state import Resource

CONNECTOR_PREFIX = 28
# A hyphen counts as two (cloud.google.com/vpc/docs/configure-serverless-vpc-access).
CONNECTOR_NAME_LIMIT = 20
MIN_INSTANCES, MAX_INSTANCES = 2, 10
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


class Connector(GcpHandler):
    """A serverless VPC connector: Cloud Run's way into a network, on a /28 of its own."""

    token = CONNECTOR
    id_format = "projects/{project}/locations/{region}/connectors/{name}"
    noun = "Connector"
    shapes_network = True

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        name = inputs["name"]
        if not _NAME.fullmatch(name) or len(name) + name.count("-") > CONNECTOR_NAME_LIMIT:
            raise _bad(
                f"Invalid connector name '{name}': at most 20 characters of a-z, 0-9 and - (which "
                "counts twice)"
            )
        if inputs["machineType"] not in CONNECTOR_MACHINE_TYPES:
            raise _bad(f"Unsupported machine type '{inputs['machineType']}' for a connector.")
        self._verify_instances(inputs)
        if old is None:
            self._verify_range(inputs)

    def _verify_instances(self, inputs: dict[str, Any]) -> None:
        low = inputs.get("minInstances") or MIN_INSTANCES
        high = inputs.get("maxInstances") or max(3, low + 1)
        if not MIN_INSTANCES <= low < high <= MAX_INSTANCES:
            raise _bad(
                f"A connector has between {MIN_INSTANCES} and {MAX_INSTANCES} instances, and more at "
                "most than "
                f"at least: got {low} and {high}."
            )

    def _verify_range(self, inputs: dict[str, Any]) -> None:
        if inputs.get("ipCidrRange"):
            network = self.network(inputs["network"], inputs)
            cidr = ipaddress.ip_network(inputs["ipCidrRange"])
            if cidr.prefixlen != CONNECTOR_PREFIX:
                raise _bad(f"Invalid IP CIDR range {cidr}: the netmask must be /28.")
            verify_local_range(self.cloud, str(cidr))
            verify_free_range(self.cloud, network.id, str(cidr), "")
            return
        written = (inputs.get("subnet") or {}).get("name")
        if not written:
            raise _bad("Either a subnet or an IP CIDR range and a network must be given.")
        subnet = self.subnetwork(written, inputs)
        prefix = ipaddress.ip_network(subnet.outputs["ipCidrRange"]).prefixlen
        if prefix != CONNECTOR_PREFIX:
            raise _bad(f"Subnet '{subnet.outputs['name']}' has a /{prefix} netmask: it must be /28.")
        for token in (CONNECTOR, INSTANCE):
            for user in self.cloud.store.all(token):
                if uses_subnetwork(user, subnet):
                    raise _bad(f"Subnet '{subnet.outputs['name']}' is already used by '{user.id}'.")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        low = inputs.get("minInstances") or MIN_INSTANCES
        high = inputs.get("maxInstances") or max(3, low + 1)
        found: dict[str, Any] = {
            "minInstances": low,
            "maxInstances": high,
            "minThroughput": inputs.get("minThroughput") or low * 100,
            "maxThroughput": inputs.get("maxThroughput") or high * 100,
            "connectedProjects": [],
            "selfLink": resource_id,
            "state": "READY",
        }
        if inputs.get("subnet"):
            found["subnet"] = {"projectId": inputs["project"], **inputs["subnet"]}
        elif inputs.get("network"):
            found["network"] = inputs["network"].rsplit("/", 1)[-1]
        return found


class Connection(GcpHandler):
    """The peering with Google's services, which gives Cloud SQL private addresses in the VPC."""

    token = CONNECTION
    noun = "Service Networking Connection"
    shapes_network = True

    def identify(self, inputs: dict[str, Any]) -> str:
        return f"{quote(self._network_id(inputs), safe='')}:{inputs['service']}"

    def _network_id(self, inputs: dict[str, Any]) -> str:
        return reference(inputs["network"], NETWORK_PATTERN, {"project": self.cloud.settings.project})

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if inputs["service"] != "servicenetworking.googleapis.com":
            raise CloudError(
                403, f"Permission denied on service '{inputs['service']}' (or it may not exist).", "forbidden"
            )
        project = {"project": self.cloud.settings.project}
        network = self.network(inputs["network"], project)
        if not inputs["reservedPeeringRanges"]:
            raise _bad("At least one reserved peering range is needed.")
        for name in inputs["reservedPeeringRanges"]:
            found = self.cloud.store.get(GLOBAL_ADDRESS, f"projects/local/global/addresses/{name}")
            if found is None or found.outputs.get("purpose") != "VPC_PEERING":
                raise not_found(f"projects/{project['project']}/global/addresses/{name}")
            if reference(found.outputs["network"], NETWORK_PATTERN, project) != network.id:
                raise _bad(f"The range '{name}' isn't reserved in network '{network.id}'.")

    def takes_over(self, inputs: dict[str, Any]) -> bool:
        return bool(inputs.get("updateOnCreationFail"))

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(
            400,
            "Cannot modify allocated ranges in CreateConnection. Please use UpdateConnection.",
            "failedPrecondition",
        )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"peering": "servicenetworking-googleapis-com"}

    def verify_delete(self, resource: Resource) -> None:
        own = self._network_id(resource.outputs)
        for instance in self.cloud.store.all(SQL_INSTANCE):
            config = (instance.outputs.get("settings") or {}).get("ipConfiguration") or {}
            written = config.get("privateNetwork")
            if written and reference(written, NETWORK_PATTERN, {"project": "local"}) == own:
                raise CloudError(
                    400,
                    "Failed to delete connection; Producer services (e.g. CloudSQL, Cloud Memstore, "
                    "etc.) are "
                    "still using this connection.",
                    "failedPrecondition",
                )

    async def delete(self, resource_id: str) -> None:
        # ABANDON leaves the real peering to Google, which drops it with the network. Keeping it here
        # would block the network for good, so abandoning is deleting without the question who uses it.
        resource = self.cloud.store.get(self.token, resource_id)
        if resource is not None and resource.outputs.get("deletionPolicy") == "ABANDON":
            self._forget(resource_id)
        else:
            await super().delete(resource_id)


def _bad(why: str) -> CloudError:
    return CloudError(400, why, "badRequest")


HANDLERS = (Connector, Connection)
