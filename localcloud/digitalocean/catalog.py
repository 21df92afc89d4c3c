"""Sizes, regions and images on offer, from catalog.json (with prices, their sources and dates)."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from localcloud.cloud import Cloud
from localcloud.digitalocean.parts import IMAGES, Json

FEATURES = ["backups", "ipv6", "metadata", "install_agent", "storage", "image_transfer"]


@cache
def _catalog() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(files(__package__).joinpath("catalog.json").read_text("utf-8"))
    return loaded


def default_region() -> str:
    """Where a droplet without a region goes: the first that takes droplets."""
    return next(str(slug) for slug, region in _catalog()["regions"].items() if region["available"])


def has_size(slug: object) -> bool:
    """Whether a size of that slug is on offer."""
    return slug in _catalog()["sizes"]


def has_region(slug: object) -> bool:
    """Whether there is a region of that slug, available or not."""
    return slug in _catalog()["regions"]


def size(slug: str) -> Json:
    """A size as the API shows it. Prices in US dollars, memory in MB, disk in GB, transfer in TB."""
    regions = [name for name, region in _catalog()["regions"].items() if region["available"]]
    facts = _catalog()["sizes"][slug]
    return {"slug": slug, **facts, "regions": regions, "available": True, "description": "Basic"}


def sizes() -> list[Json]:
    """All sizes on offer."""
    return [size(slug) for slug in _catalog()["sizes"]]


def region(slug: str) -> Json:
    """A region as the API shows it."""
    facts = _catalog()["regions"][slug]
    on_offer = list(_catalog()["sizes"]) if facts["available"] else []
    return {
        "name": facts["name"],
        "slug": slug,
        "features": FEATURES,
        "available": facts["available"],
        "sizes": on_offer,
    }


def regions() -> list[Json]:
    """All regions."""
    return [region(slug) for slug in _catalog()["regions"]]


def images(cloud: Cloud, private: bool | None = None) -> list[Json]:
    """The stock images, then the account's own snapshots; `private` chooses one of the two."""
    regions = list(_catalog()["regions"])
    stock = [
        {
            "id": facts["id"],
            "slug": slug,
            "name": facts["name"],
            "distribution": facts["distribution"],
            "public": True,
            "type": "base",
            "status": "available",
            "regions": regions,
            "min_disk_size": facts["min_disk_size"],
            "size_gigabytes": 1.0,
            "description": facts["name"],
            "created_at": "2026-01-01T00:00:00Z",
            "tags": [],
        }
        for slug, facts in _catalog()["images"].items()
    ]
    own = list(cloud.store.notes(IMAGES).values())
    return own if private else stock if private is False else stock + own


def find_image(cloud: Cloud, wanted: object) -> Json | None:
    """The image with that slug or number, if this account may use it. Another account's snapshot looks
    like none at all, as it does at DigitalOcean."""
    for image in images(cloud):
        if wanted == image["slug"] or str(wanted) == str(image["id"]):
            return image
    return None


def keep_snapshot(
    cloud: Cloud, number: int, *, name: str, regions: list[str], min_disk_size: int, created_at: str
) -> None:
    """Adds a private snapshot to the account's images; `min_disk_size` in GB."""
    image = {
        "id": number,
        "slug": None,
        "name": name,
        "distribution": "Ubuntu",
        "public": False,
        "type": "snapshot",
        "status": "available",
        "regions": regions,
        "min_disk_size": min_disk_size,
        "size_gigabytes": 2.0,
        "description": "",
        "created_at": created_at,
        "tags": [],
    }
    cloud.store.note(IMAGES, str(number), image)
