"""Names that the clouds accept: regions, zones, machine types and droplet sizes.

A wrong name would otherwise be found by the real cloud, minutes into an `up`. The lists are those of
the clouds' own pages (cloud.google.com/compute/docs/regions-zones, .../machine-resource,
docs.digitalocean.com/platform/regional-availability, slugs.do-api.dev) as of August 2026; a name that
is newer is added here.
"""

from __future__ import annotations

import re
from typing import Final

# Region -> the letters of its zones.
GCP_ZONES: Final[dict[str, str]] = {
    "africa-south1": "abc",
    "asia-east1": "abc",
    "asia-east2": "abc",
    "asia-northeast1": "abc",
    "asia-northeast2": "abc",
    "asia-northeast3": "abc",
    "asia-south1": "abc",
    "asia-south2": "abc",
    "asia-southeast1": "abc",
    "asia-southeast2": "abc",
    "australia-southeast1": "abc",
    "australia-southeast2": "abc",
    "europe-central2": "abc",
    "europe-north1": "abc",
    "europe-southwest1": "abc",
    "europe-west1": "bcd",
    "europe-west2": "abc",
    "europe-west3": "abc",
    "europe-west4": "abc",
    "europe-west6": "abc",
    "europe-west8": "abc",
    "europe-west9": "abc",
    "europe-west10": "abc",
    "europe-west12": "abc",
    "me-central1": "abc",
    "me-west1": "abc",
    "northamerica-northeast1": "abc",
    "northamerica-northeast2": "abc",
    "southamerica-east1": "abc",
    "southamerica-west1": "abc",
    "us-central1": "abcf",
    "us-east1": "bcd",
    "us-east4": "abc",
    "us-east5": "abc",
    "us-south1": "abc",
    "us-west1": "abc",
    "us-west2": "abc",
    "us-west3": "abc",
    "us-west4": "abc",
}

# Machine type -> memory in MiB. Only what an IB Gateway could sensibly run on.
GCP_MACHINE_TYPES: Final[dict[str, int]] = {
    "f1-micro": 614,
    "g1-small": 1740,
    "e2-micro": 1024,
    "e2-small": 2048,
    "e2-medium": 4096,
    "e2-standard-2": 8192,
    "e2-standard-4": 16384,
    "e2-highmem-2": 16384,
    "e2-highcpu-2": 2048,
    "e2-highcpu-4": 4096,
    "n1-standard-1": 3840,
    "n1-standard-2": 7680,
    "n2-standard-2": 8192,
    "n2d-standard-2": 8192,
    "n4-standard-2": 8192,
    "t2d-standard-1": 4096,
    "t2d-standard-2": 8192,
    "c3-standard-4": 16384,
    "c4-standard-2": 7168,
}
_CUSTOM_MACHINE_TYPE = re.compile(r"(?:(?:e2|n2|n2d|n4)-)?custom-[0-9]+-([0-9]+)")

SQL_TIERS: Final[tuple[str, ...]] = ("db-f1-micro", "db-g1-small")
SQL_CUSTOM_TIER = re.compile(r"db-custom-[0-9]+-[0-9]+")

DIGITALOCEAN_REGIONS: Final[tuple[str, ...]] = (
    "ams3", "atl1", "blr1", "fra1", "lon1", "nyc1", "nyc2", "nyc3", "sfo2", "sfo3", "sgp1", "syd1", "tor1",
)  # fmt: skip

# Size slug -> memory in MiB.
DIGITALOCEAN_SIZES: Final[dict[str, int]] = {
    "s-1vcpu-512mb-10gb": 512,
    "s-1vcpu-1gb": 1024,
    "s-1vcpu-1gb-amd": 1024,
    "s-1vcpu-1gb-intel": 1024,
    "s-1vcpu-2gb": 2048,
    "s-1vcpu-2gb-amd": 2048,
    "s-1vcpu-2gb-intel": 2048,
    "s-2vcpu-2gb": 2048,
    "s-2vcpu-2gb-amd": 2048,
    "s-2vcpu-2gb-intel": 2048,
    "s-2vcpu-4gb": 4096,
    "s-2vcpu-4gb-amd": 4096,
    "s-2vcpu-4gb-intel": 4096,
    "s-4vcpu-8gb": 8192,
}


def machine_memory(machine_type: str) -> int | None:
    """Memory of a GCE machine type in MiB, or None if there is no such type."""
    custom = _CUSTOM_MACHINE_TYPE.fullmatch(machine_type)
    if custom:
        return int(custom.group(1))
    return GCP_MACHINE_TYPES.get(machine_type)


def zones_of(region: str) -> tuple[str, ...]:
    """The zones of a GCP region, empty if there is no such region."""
    return tuple(f"{region}-{letter}" for letter in GCP_ZONES.get(region, ""))
