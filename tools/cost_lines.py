"""What a plan costs in a month: each resource that is billed, by its dated price.

Pure functions of a plan's data. A month has 730 hours, as in the clouds' own price lists. What use a stack
gets isn't in a plan: `ASSUMED` says what is taken for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

HOURS = 730
SECONDS = HOURS * 3600
# One person's trading: taken where a plan can't know. Change them here if yours is different.
ASSUMED = {
    "GiB through NAT": 5,
    "GiB to the internet": 3,
    "GB of images": 2,  # ten are kept, and share most layers
    "KMS operations": 10_000,
    "requests": 100_000,
    "seconds a request": 0.3,
}
# DigitalOcean bills at most 28 days (prices.json: droplet-cap).
DROPLET_CAP_HOURS = 672
# US trading days are 6.5 hours; a gateway is up half an hour before and after. 21 of them in a month.
TRADING_HOURS = 21 * 7.5
# Billed by use that stays within what is free, or not at all.
FREE = frozenset(
    {
        "compute/firewall:Firewall",
        "compute/globalAddress:GlobalAddress",
        "compute/network:Network",
        "compute/router:Router",
        "compute/subnetwork:Subnetwork",
        "compute/resourcePolicy:ResourcePolicy",
        "billing/budget:Budget",
        "kms/keyRing:KeyRing",
        "logging/metric:Metric",
        "monitoring/alertPolicy:AlertPolicy",  # until September 2027 (prices.json: alerting-future)
        "monitoring/dashboard:Dashboard",
        "monitoring/notificationChannel:NotificationChannel",
        "monitoring/uptimeCheckConfig:UptimeCheckConfig",  # the first million executions
        "cloudrunv2/job:Job",  # seconds at each deployment
        "projects/service:Service",
        "secretmanager/secret:Secret",  # its versions are billed
        "serviceaccount/account:Account",
        "servicenetworking/connection:Connection",
        "sql/database:Database",
        "sql/user:User",
        "iam/workloadIdentityPool:WorkloadIdentityPool",
        "iam/workloadIdentityPoolProvider:WorkloadIdentityPoolProvider",
        "index/firewall:Firewall",
        "index/tag:Tag",
        "local:Command",
        "index/projectServiceIdentity:ProjectServiceIdentity",
        "projects/serviceIdentity:ServiceIdentity",
    }
)
_CUSTOM_TIER = re.compile(r"db-custom-(\d+)-(\d+)")
_GIB = {"Mi": 1 / 1024, "Gi": 1.0}


@dataclass(frozen=True)
class Line:
    """One item of the bill. `user` is whose droplet it is."""

    component: str
    item: str
    usd: float
    prices: tuple[str, ...]
    note: str = ""
    user: str = ""


class UnknownPriceError(Exception):
    """There is no price for this in tools/prices.json; it says what."""


@cache
def prices() -> Mapping[str, Mapping[str, Any]]:
    """The dated prices by id, each with its unit, region and source."""
    listed = json.loads((Path(__file__).parent / "prices.json").read_text())
    return {entry["id"]: entry for entry in listed}


def price(name: str) -> float:
    """A price in dollars, per its own unit. Raises UnknownPriceError."""
    entry = prices().get(name)
    if entry is None or entry["usd"] is None:
        raise UnknownPriceError(name)
    return float(entry["usd"])


def lines_of(plan: Mapping[str, Any]) -> tuple[list[Line], list[str]]:
    """What a plan costs, and the types and sizes in it that nobody priced."""
    found: list[Line] = []
    unpriced: list[str] = []
    machines = 0
    for resource in plan["resources"]:
        kind = str(resource["type"]).partition(":")[2]
        machines += _machines(kind, resource["inputs"])
        try:
            found += _lines(kind, resource["name"], resource["inputs"])
        except UnknownPriceError as unknown:
            unpriced.append(f"{resource['type']} {resource['name']}: {unknown}")
    found += _nat(plan["resources"], machines)
    found += _market_data(plan["settings"])
    return found, unpriced


def total(lines: Sequence[Line]) -> float:
    """The sum in dollars a month."""
    return sum(line.usd for line in lines)


def free_of(plan: Mapping[str, Any], lines: Sequence[Line]) -> float:
    """What Google's free tiers take off, where the billing account has no other use of them."""
    off = 0.0
    if any("always on" in line.item for line in lines):
        off += 240_000 * price("run-instance-cpu") + 450_000 * price("run-instance-memory")
    # One e2-micro a month, in the regions that the policies allow. Its disk must be pd-standard to be free.
    off += max((line.usd for line in lines if line.prices == ("gce-e2-micro",)), default=0.0)
    versions = [line for line in lines if line.prices == ("secret-version",)]
    off += min(len(versions), 6) * price("secret-version")
    if plan["settings"]["environment"]:
        off += price("egress")
    if any(line.prices == ("registry-storage",) for line in lines):
        off += 0.5 * price("registry-storage")
    return off + sum(line.usd for line in lines if line.prices == ("scheduler-job",))


def _lines(kind: str, name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    pricing = _PRICED.get(kind)
    if pricing is not None:
        yield from pricing(name, inputs)
    elif kind not in FREE and not kind.endswith(("IAMMember", "IamMember", "IAMBinding")):
        raise UnknownPriceError("this type isn't known")


def _instance(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    machine = str(inputs["machineType"])
    hourly = f"gce-{machine}"
    yield Line("IB Gateway VM", f"{machine}, all month", HOURS * price(hourly), (hourly,))
    boot = inputs["bootDisk"]["initializeParams"]
    yield _disk_line("boot disk", boot.get("type", "pd-standard"), boot.get("size", 10))


def _disk(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    yield _disk_line("settings disk", inputs.get("type", "pd-standard"), inputs.get("size", 10))


def _disk_line(what: str, kind: str, size: float) -> Line:
    return Line("IB Gateway VM", f"{what}, {size:g} GB", size * price(f"disk-{kind}"), (f"disk-{kind}",))


def _address(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    if inputs.get("addressType", "EXTERNAL") == "EXTERNAL":
        yield Line("Way out (NAT)", "its static address", HOURS * price("ipv4-in-use"), ("ipv4-in-use",))


def _machines(kind: str, inputs: Mapping[str, Any]) -> int:
    """How many machines of the VPC a resource is."""
    if kind == "compute/instance:Instance":
        return 1
    return int(inputs.get("minInstances") or 2) if kind == "vpcaccess/connector:Connector" else 0


def _nat(resources: Sequence[Mapping[str, Any]], machines: int) -> Iterator[Line]:
    """Cloud NAT is billed by the machines that use it, the connector's among them."""
    if any(str(resource["type"]).endswith(":RouterNat") for resource in resources):
        note = "whether the connector's count isn't documented"
        cost = machines * HOURS * price("nat-vm")
        yield Line("Way out (NAT)", f"gateway, {machines} machines", cost, ("nat-vm",), note)
        amount = ASSUMED["GiB through NAT"]
        yield Line("Way out (NAT)", f"{amount:g} GiB", amount * price("nat-data"), ("nat-data",), "assumed")


def _connector(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    count, machine = int(inputs.get("minInstances") or 2), str(inputs.get("machineType") or "e2-micro")
    rate = "connector-instance" if machine == "e2-micro" else f"gce-{machine}"
    cost = count * HOURS * price(rate)
    yield Line("VPC connector", f"{count} x {machine}, all month", cost, (rate,))


def _service(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    template = inputs["template"]
    resources = template["containers"][0]["resources"]
    cpus, memory = float(resources["limits"]["cpu"]), _gib(resources["limits"]["memory"])
    always = int((template.get("scaling") or {}).get("minInstanceCount") or 0)
    if always and not resources.get("cpuIdle", True):
        note = "a TWS connection lives in the service"
        cpu = always * cpus * SECONDS * price("run-instance-cpu")
        yield Line("API service", f"{cpus:g} CPU, always on", cpu, ("run-instance-cpu",), note)
        kept = always * memory * SECONDS * price("run-instance-memory")
        yield Line("API service", f"{memory:g} GiB, always on", kept, ("run-instance-memory",))
    else:
        requests, each = ASSUMED["requests"], ASSUMED["seconds a request"]
        cost = requests * each * (
            cpus * price("run-request-cpu") + memory * price("run-request-memory")
        ) + requests / 1e6 * price("run-requests")
        used = ("run-request-cpu", "run-request-memory", "run-requests")
        yield Line(
            "API service", f"{requests:,} requests of {each:g} s", cost, used, "assumed; scales to zero"
        )
    amount = ASSUMED["GiB to the internet"]
    yield Line(
        "API service", f"{amount:g} GiB to its users", amount * price("egress"), ("egress",), "assumed"
    )


def _gib(text: str) -> float:
    return float(text[:-2]) * _GIB[text[-2:]]


def _database(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    settings = inputs["settings"]
    tier, size = str(settings["tier"]), float(settings.get("diskSize") or 10)
    twice = 2 if settings.get("availabilityType") == "REGIONAL" else 1
    kind = f"{tier}{', highly available' if twice == 2 else ''}"
    custom = _CUSTOM_TIER.fullmatch(tier)
    if custom:
        gib = int(custom[2]) / 1024
        hourly = int(custom[1]) * price("sql-cpu") + gib * price("sql-memory")
        yield Line("Database", kind, twice * HOURS * hourly, ("sql-cpu", "sql-memory"))
    elif tier == "db-g1-small":
        yield Line("Database", kind, twice * price("sql-db-g1-small"), ("sql-db-g1-small",))
    else:
        yield Line("Database", kind, twice * HOURS * price(f"sql-{tier}"), (f"sql-{tier}",))
    yield Line("Database", f"disk, {size:g} GB", twice * size * price("sql-ssd"), ("sql-ssd",))
    if (settings.get("backupConfiguration") or {}).get("enabled"):
        yield Line(
            "Database",
            f"backups, {size:g} GB",
            size * price("sql-backup"),
            ("sql-backup",),
            "at most, at first",
        )


def _secret(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    yield Line("Secrets and keys", "secret versions", price("secret-version"), ("secret-version",))


def _key(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    use = ASSUMED["KMS operations"] / 10_000 * price("kms-operations")
    used = ("kms-key-version", "kms-operations")
    yield Line("Secrets and keys", "KMS keys", price("kms-key-version") + use, used, "one version each")


def _registry(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    amount = ASSUMED["GB of images"]
    cost = amount * price("registry-storage")
    yield Line("Image registry", f"{amount:g} GB", cost, ("registry-storage",), "assumed")


def _job(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    yield Line("Scheduler", "job", price("scheduler-job"), ("scheduler-job",))


def _droplet(name: str, inputs: Mapping[str, Any]) -> Iterator[Line]:
    size = str(inputs["size"])
    user = str(inputs["name"]).partition("-ib-")[0]
    item = f"{inputs['name']}, {size}"
    yield Line("IBeam droplets", item, price(f"droplet-{size}"), (f"droplet-{size}",), user=user)


def _market_data(settings: Mapping[str, Any]) -> Iterator[Line]:
    if settings["environment"] and settings["market_data"] == "ibkr":
        used = ("ibkr-us-bundle", "ibkr-us-streaming")
        cost = sum(price(name) for name in used)
        note = "billed by IBKR; the bundle is waived from 30 dollars of commissions"
        yield Line("Market data", "IBKR, US stocks, streaming", cost, used, note)


def droplet_month(size: str, hours: float = HOURS) -> float:
    """A droplet's month, of which it exists for so many hours (powered off is billed all the same)."""
    return min(hours, DROPLET_CAP_HOURS) * price(f"droplet-hour-{size}")


_PRICED = {
    "artifactregistry/repository:Repository": _registry,
    "cloudrunv2/service:Service": _service,
    "cloudscheduler/job:Job": _job,
    "compute/address:Address": _address,
    "compute/disk:Disk": _disk,
    "compute/instance:Instance": _instance,
    "compute/routerNat:RouterNat": lambda name, inputs: iter(()),  # by its machines: `_nat`
    "index/droplet:Droplet": _droplet,
    "kms/cryptoKey:CryptoKey": _key,
    "secretmanager/secretVersion:SecretVersion": _secret,
    "sql/databaseInstance:DatabaseInstance": _database,
    "vpcaccess/connector:Connector": _connector,
}
