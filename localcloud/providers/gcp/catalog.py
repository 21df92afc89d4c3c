"""What Google Cloud has on offer, as far as a declaration can name it.

Source: cloud.google.com/compute/docs/regions-zones, /general-purpose-machines and /images/os-details,
read from memory of 2025; a name missing here is refused as the real API refuses one it doesn't know.
"""

from __future__ import annotations

import re

REGIONS = frozenset(
    [
        "africa-south1",
        "asia-east1",
        "asia-east2",
        "asia-northeast1",
        "asia-northeast2",
        "asia-northeast3",
        "asia-south1",
        "asia-south2",
        "asia-southeast1",
        "asia-southeast2",
        "australia-southeast1",
        "australia-southeast2",
        "europe-central2",
        "europe-north1",
        "europe-north2",
        "europe-southwest1",
        "europe-west1",
        "europe-west2",
        "europe-west3",
        "europe-west4",
        "europe-west6",
        "europe-west8",
        "europe-west9",
        "europe-west10",
        "europe-west12",
        "me-central1",
        "me-central2",
        "me-west1",
        "northamerica-northeast1",
        "northamerica-northeast2",
        "northamerica-south1",
        "southamerica-east1",
        "southamerica-west1",
        "us-central1",
        "us-east1",
        "us-east4",
        "us-east5",
        "us-south1",
        "us-west1",
        "us-west2",
        "us-west3",
        "us-west4",
    ]
)
MULTI_REGIONS = frozenset({"us", "europe", "asia", "eu", "nam4", "eur4", "asia1"})
# Most regions have the zones a, b and c.
ZONE_LETTERS = {"us-central1": "abcf", "us-east1": "bcd", "europe-west1": "bcd"}

_FAMILIES = r"(e2|n1|n2|n2d|n4|c2|c2d|c3|c3d|c4|c4a|c4d|t2a|t2d|m1|m2|m3)"
_MACHINE_TYPES = re.compile(
    rf"(f1-micro|g1-small|e2-(micro|small|medium)|{_FAMILIES}-(standard|highmem|highcpu)-(1|2|4|8|16|22|30|32"
    r"|44|48|60|64|80|88|96|128|176|192)|(e2|n1|n2|n2d|n4)-custom-(small-|medium-|micro-)?(\d+-)?\d+)"
)
DISK_TYPES = frozenset(
    {"pd-standard", "pd-balanced", "pd-ssd", "pd-extreme", "hyperdisk-balanced", "hyperdisk-extreme"}
)
CONNECTOR_MACHINE_TYPES = frozenset({"f1-micro", "e2-micro", "e2-standard-4"})
SQL_TIERS = re.compile(r"db-(f1-micro|g1-small|custom-\d+-\d+|perf-optimized-N-\d+)")

# Image families by the project that publishes them. Ubuntu 24.04's has the architecture in its name.
IMAGE_FAMILIES = {
    "ubuntu-os-cloud": (
        "ubuntu-2204-lts",
        "ubuntu-2204-lts-arm64",
        "ubuntu-2404-lts-amd64",
        "ubuntu-2404-lts-arm64",
        "ubuntu-minimal-2204-lts",
        "ubuntu-minimal-2404-lts-amd64",
    ),
    "debian-cloud": ("debian-11", "debian-12", "debian-12-arm64", "debian-13"),
    "cos-cloud": ("cos-stable", "cos-beta", "cos-dev", "cos-117-lts", "cos-121-lts"),
    "rocky-linux-cloud": ("rocky-linux-8", "rocky-linux-9"),
}
IMAGE_SIZE_GB = 10


def region_of(zone: str) -> str:
    """`us-west1-b` is in `us-west1`."""
    return zone.rpartition("-")[0]


def has_zone(zone: str) -> bool:
    """Whether there is such a zone."""
    region, _, letter = zone.rpartition("-")
    return region in REGIONS and len(letter) == 1 and letter in ZONE_LETTERS.get(region, "abc")


def has_machine_type(name: str) -> bool:
    """Whether there is such a machine type; zones that lack some of them aren't told apart."""
    return _MACHINE_TYPES.fullmatch(name) is not None


def find_image(written: str) -> str | None:
    """The self link of a public image family, from any way that the provider lets it be written."""
    path = written.split("/compute/v1/")[-1].removeprefix("projects/")
    name = path.rsplit("/", 1)[-1]
    project = path.split("/", 1)[0] if "/" in path else None
    for owner, families in IMAGE_FAMILIES.items():
        stems = [f for f in families if name == f or _is_version(name, f)]
        if stems and project in (None, owner, "family", "global"):
            kind = "images/family" if name in families else "images"
            return f"https://www.googleapis.com/compute/v1/projects/{owner}/global/{kind}/{name}"
    return None


def _is_version(name: str, family: str) -> bool:
    stem = family.removesuffix("-lts").removesuffix("-lts-amd64")
    return re.fullmatch(rf"{re.escape(stem)}(-[a-z]+)*-v\d{{8}}\w*", name) is not None
