"""Accounts and droplets made up for tests of decisions."""

from __future__ import annotations

from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from broker.fleet.account import Account
from broker.fleet.digitalocean import Droplet

NOW = datetime(2026, 11, 20, 15, 0, tzinfo=UTC)


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def account(**changes: Any) -> Account:
    """A running account without a droplet, an hour old."""
    values: dict[str, Any] = {
        "id": "ib-demo-a1b2c3d4", "user_id": "ada", "username": "ada", "username_index": 1,
        "environment": "demo", "wanted": "running", "policy": "always", "unattended_live": False,
        "ib_account": "",
        "status": "provisioning", "status_reason": "", "status_detail": "", "status_since": ago(3600),
        "credentials_version": 1, "pushed_version": 0, "boot_id": "", "generation": 0,
        "create_attempts": 0, "failed_logins": 0, "version": 0, "created_at": ago(3600),
        "updated_at": ago(3600),
    }  # fmt: skip
    unset = {f.name: None for f in fields(Account) if f.name not in values}
    return Account(**{**values, **unset, **changes})


def with_droplet(number: int = 7, **changes: Any) -> Account:
    """An account whose droplet was made an hour ago, has enrolled and has the credentials."""
    values = {
        "do_droplet_id": number, "certificate_droplet_id": number, "certificate_sha256": "c" * 64,
        "credentials_droplet_id": number, "pushed_version": 1, "generation": 1, "status": "running",
        "create_started_at": ago(3600), "login_since": ago(3500),
    }  # fmt: skip
    return account(**values | changes)


def droplet(number: int = 7, status: str = "active", **changes: Any) -> Droplet:
    values: dict[str, Any] = {
        "id": number, "name": "ada-ib-demo-1", "status": status, "locked": False,
        "address": "" if status == "new" else "127.9.0.1", "region": "nyc1", "size": "s-1vcpu-1gb",
        "tags": ("stack:test",), "created_at": "",
    }  # fmt: skip
    return Droplet(**values | changes)
