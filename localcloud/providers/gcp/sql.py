"""Cloud SQL for PostgreSQL: an instance is a real server, its databases and users are real ones."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any

from localcloud.cloud import CloudError
from localcloud.machines import postgres
from localcloud.providers.gcp.base import CONNECTION, GLOBAL_ADDRESS, SQL_INSTANCE, GcpHandler, plain
from localcloud.providers.gcp.catalog import SQL_TIERS
from localcloud.providers.gcp.identity import is_reserved, reserve
from localcloud.providers.gcp.network import uses_network
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN
from localcloud.state import Resource

DATABASE = "gcp:sql/database:Database"
USER = "gcp:sql/user:User"
# cloud.google.com/sql/docs/postgres/delete-instance
NAME_RESERVED_DAYS = 7
# From here on an instance without an edition is Enterprise Plus
# (cloud.google.com/sql/docs/postgres/editions-intro).
FIRST_PLUS_RELEASE = 16
NAME_LIMIT = 98 - len("local:")
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


def machine_name(instance: str) -> str:
    """The machine of an instance."""
    return f"sql/{instance}"


class DatabaseInstance(GcpHandler):
    """A PostgreSQL server on a private address of the network's service range."""

    token = SQL_INSTANCE
    id_format = "{name}"
    noun = "DatabaseInstance"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        version = inputs.get("databaseVersion")
        if version is not UNKNOWN and not str(version or "POSTGRES").startswith("POSTGRES"):
            yield Failure("databaseVersion", f"the local cloud has PostgreSQL only, not {version}")

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_place(inputs)
        settings = inputs.get("settings") or {}
        if not re.fullmatch(r"POSTGRES_(9_6|1[0-8])", inputs["databaseVersion"]):
            raise _invalid(f"The incoming database version {inputs['databaseVersion']} is not a valid one.")
        if not _NAME.fullmatch(inputs["name"]) or len(inputs["name"]) > NAME_LIMIT:
            raise _invalid(f"Invalid instance name ({inputs['name']}).")
        self._verify_tier(inputs, settings)
        if old is not None and _release(inputs["databaseVersion"]) < _release(old.outputs["databaseVersion"]):
            raise _invalid("The database version can't be downgraded.")
        self._verify_address(inputs, settings)
        if old is None and is_reserved(self.cloud, f"sql/{inputs['name']}"):
            raise self.exists(inputs["name"], inputs)

    def _verify_tier(self, inputs: dict[str, Any], settings: dict[str, Any]) -> None:
        """Each edition has tiers of its own, and the default edition changed with PostgreSQL 16."""
        recent = _release(inputs["databaseVersion"]) >= FIRST_PLUS_RELEASE
        edition = settings.get("edition") or ("ENTERPRISE_PLUS" if recent else "ENTERPRISE")
        tier = settings.get("tier") or ""
        of_plus = tier.startswith("db-perf-optimized")
        if not SQL_TIERS.fullmatch(tier) or of_plus != (edition == "ENTERPRISE_PLUS"):
            raise _invalid(f"Invalid Tier ({tier}) for ({edition}) Edition.")

    def _verify_address(self, inputs: dict[str, Any], settings: dict[str, Any]) -> None:
        config = settings.get("ipConfiguration") or {"ipv4Enabled": True}
        if not config.get("privateNetwork"):
            if not config.get("ipv4Enabled"):
                raise _invalid("At least one of Public IP, Private IP or PSC connectivity must be enabled.")
            raise CloudError(
                501, "the local cloud has Cloud SQL on private addresses only: set privateNetwork"
            )
        network = self.network(config["privateNetwork"], inputs)
        if not any(uses_network(found, network.id) for found in self.cloud.store.all(CONNECTION)):
            raise CloudError(
                400,
                "Invalid request: Incorrect Service Networking config for instance: "
                f"{inputs['project']}:{inputs['name']}:NETWORK_NOT_PEERED.",
                "SERVICE_NETWORKING_NOT_ENABLED",
            )

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(
            409,
            "The Cloud SQL instance already exists. When you delete an instance, you can't reuse the "
            "name of the "
            "deleted instance until one week from the deletion date.",
            "instanceAlreadyExists",
        )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        project, region = inputs["project"], inputs["region"]
        return {
            "availableMaintenanceVersions": [],
            "connectionName": f"{project}:{region}:{resource_id}",
            "dnsName": "",
            "dnsNames": [],
            "instanceType": "CLOUD_SQL_INSTANCE",
            "publicIpAddress": "",
            "pscServiceAttachmentLink": "",
            "rootPasswordWo": None,
            "selfLink": f"https://sqladmin.googleapis.com/sql/v1beta4/projects/{project}/instances/{resource_id}",
            "serverCaCerts": [],
            "serviceAccountEmailAddress": f"p{plain(resource_id)}@gcp-sa-cloud-sql.iam.gserviceaccount.com",
        }

    async def started(self, resource: Resource) -> None:
        out = resource.outputs
        machine = machine_name(out["name"])
        network = self.network(out["settings"]["ipConfiguration"]["privateNetwork"], out)
        address = self._address(network, machine)
        spec = {
            "address": address,
            "network": network.outputs["name"],
            "root_password": resource.inputs.get("rootPassword") or resource.inputs.get("rootPasswordWo"),
        }
        try:
            await self.cloud.machines.boot(machine, "sql", spec)
        except BaseException:
            await self.cloud.machines.delete(machine)
            self.cloud.addresses.release(machine)
            raise
        out["privateIpAddress"] = out["firstIpAddress"] = address
        out["ipAddresses"] = [{"ipAddress": address, "timeToRetire": "", "type": "PRIVATE"}]

    def _address(self, network: Resource, machine: str) -> str:
        for reserved in self.cloud.store.all(GLOBAL_ADDRESS):
            out = reserved.outputs
            if out.get("purpose") == "VPC_PEERING" and uses_network(reserved, network.id):
                cidr = ipaddress.ip_network(f"{out['address']}/{out['prefixLength']}")
                # Every instance gets a /24 of Google's side; the first usable address of ours will do.
                return self.cloud.addresses.allocate_in(str(cidr), machine)
        raise _invalid("There is no reserved range for the service networking connection.")

    async def changed(self, old: Resource, new: Resource) -> None:
        machine = machine_name(old.outputs["name"])
        policy = (new.outputs.get("settings") or {}).get("activationPolicy", "ALWAYS")
        before = (old.outputs.get("settings") or {}).get("activationPolicy", "ALWAYS")
        if policy != before and policy == "NEVER":
            await self.cloud.machines.power_off(machine)
        elif policy != before:
            await self.cloud.machines.power_on(machine)
        password = new.inputs.get("rootPassword")
        if password and password != old.inputs.get("rootPassword"):
            await postgres.create_user(self.cloud, machine, "postgres", password)

    def verify_delete(self, resource: Resource) -> None:
        settings = resource.outputs.get("settings") or {}
        if resource.outputs.get("deletionProtection") or settings.get("deletionProtectionEnabled"):
            raise CloudError(
                400,
                "Error, failed to delete instance because deletion_protection is set to true. Set it "
                "to false to "
                f"proceed with instance deletion ({resource.id})",
            )

    async def stopped(self, resource: Resource) -> None:
        machine = machine_name(resource.outputs["name"])
        await self.cloud.machines.delete(machine)
        self.cloud.addresses.release(machine)
        reserve(self.cloud, f"sql/{resource.id}", NAME_RESERVED_DAYS)
        for token in (DATABASE, USER):
            for part in self.cloud.store.all(token):
                if part.outputs["instance"] == resource.id:
                    self.cloud.store.delete(token, part.id)

    async def observed(self, resource: Resource) -> Resource | None:
        if self.cloud.machines.status(machine_name(resource.outputs["name"])) == "ABSENT":
            return None
        return resource


class InInstance(GcpHandler):
    """What lives within an instance and goes with it."""

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if self.cloud.store.get(SQL_INSTANCE, plain(inputs["instance"])) is None:
            raise CloudError(404, "The Cloud SQL instance does not exist.", "instanceDoesNotExist")

    def machine(self, resource: Resource) -> str:
        """The server."""
        return machine_name(plain(resource.outputs["instance"]))

    def runs(self, resource: Resource) -> bool:
        """Whether there still is a server to delete it from."""
        return self.cloud.machines.status(self.machine(resource)) != "ABSENT"


class Database(InInstance):
    """A database."""

    token = DATABASE
    id_format = "projects/{project}/instances/{instance}/databases/{name}"
    noun = "Database"

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(400, f'Invalid request: database "{inputs["name"]}" already exists.', "invalid")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {
            "charset": inputs.get("charset") or "UTF8",
            "collation": inputs.get("collation") or "en_US.UTF8",
            "selfLink": f"https://sqladmin.googleapis.com/sql/v1beta4/{resource_id}",
        }

    async def started(self, resource: Resource) -> None:
        await postgres.create_database(self.cloud, self.machine(resource), resource.outputs["name"])

    async def stopped(self, resource: Resource) -> None:
        if self.runs(resource):
            await postgres.drop_database(self.cloud, self.machine(resource), resource.outputs["name"])


class User(InInstance):
    """A user with a password. Its id is `name//instance` for PostgreSQL, which has no hosts."""

    token = USER
    id_format = "{name}//{instance}"
    noun = "User"

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        super().verify(inputs, old)
        if inputs.get("type") not in (None, "", "BUILT_IN"):
            raise CloudError(501, f"the local cloud has built-in database users only, not {inputs['type']}")

    def exists(self, resource_id: str, inputs: dict[str, Any]) -> CloudError:
        return CloudError(409, f"User {inputs['name']} already exists.", "alreadyExists")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"host": inputs.get("host") or "", "iamEmail": "", "passwordWo": None}

    async def started(self, resource: Resource) -> None:
        password = self._password(resource)
        await postgres.create_user(self.cloud, self.machine(resource), resource.outputs["name"], password)

    async def changed(self, old: Resource, new: Resource) -> None:
        if self._password(old) != self._password(new):
            await postgres.set_password(
                self.cloud, self.machine(new), new.outputs["name"], self._password(new)
            )

    def _password(self, resource: Resource) -> str:
        return str(resource.inputs.get("password") or resource.inputs.get("passwordWo") or "")

    async def stopped(self, resource: Resource) -> None:
        if self.runs(resource):
            await postgres.drop_user(self.cloud, self.machine(resource), resource.outputs["name"])


def _release(version: str) -> float:
    """POSTGRES_9_6 is 9.6, POSTGRES_16 is 16."""
    return float(version.removeprefix("POSTGRES_").replace("_", "."))


def _invalid(message: str) -> CloudError:
    return CloudError(400, f"Invalid request: {message}", "invalid")


HANDLERS = (DatabaseInstance, Database, User)
