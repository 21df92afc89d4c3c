"""Where Google keeps what must outlive a region."""

from __future__ import annotations

# Multi-regions by how their regions' names begin (cloud.google.com/sql/docs/postgres/locations,
# /kms/docs/locations). The others have none: there it stays in the region.
_MULTI_REGIONS = {"us-": "us", "europe-": "europe", "asia-": "asia"}
# Cloud SQL's backups have a name of their own for Europe's.
_OF_BACKUPS = {"europe": "eu"}


def multi_region(region: str) -> str:
    """The multi-region that a region lies in; the region itself if it lies in none."""
    return next((name for start, name in _MULTI_REGIONS.items() if region.startswith(start)), region)


def backup_location(region: str) -> str:
    """Where Cloud SQL keeps backups so that they outlive their instance's region."""
    return _OF_BACKUPS.get(multi_region(region), multi_region(region))
