"""Rules on what is kept, how it is labelled, where it is and how large: and on roles that open everything."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from policy import allowed
from policy.model import Resource, Stack

_PRIMITIVE = frozenset({"roles/owner", "roles/editor", "roles/viewer"})
_ROLES = re.compile(r'"(roles/\w+)"')
_CUSTOM_TIER = re.compile(r"db-custom-(\d+)-(\d+)")
_DELETION_PROTECTED = frozenset(
    {
        "cloudrunv2/service:Service",
        "compute/instance:Instance",
        "sql/databaseInstance:DatabaseInstance",
    }
)
# What can't be made again: Pulumi itself must refuse to delete it.
_PROTECTED = frozenset(
    {"compute/disk:Disk", "kms/cryptoKey:CryptoKey", "sql/databaseInstance:DatabaseInstance"}
)


def primitive_role(resource: Resource, stack: Stack) -> Iterator[str]:
    """No owner, editor or viewer of a project: each opens every service, those of tomorrow too."""
    if not resource.type.startswith("gcp:"):
        return
    # A whole policy is one JSON text.
    found = {resource.known("role"), *_ROLES.findall(str(resource.known("policyData") or ""))}
    for role in sorted(_PRIMITIVE & found):
        yield f"grants {role}. Grant the roles of the services that it works on, e.g. roles/run.viewer."


def deletion_protection(resource: Resource, stack: Stack) -> Iterator[str]:
    """In production nothing that holds state or serves users goes by a mistaken `destroy`."""
    if not stack.is_production:
        return
    # Both default to true at Google, where they aren't said; a machine's defaults to false.
    default = not resource.is_a("compute/instance:Instance")
    if resource.is_a(*_DELETION_PROTECTED) and not resource.inputs.get("deletionProtection", default):
        yield "has no deletion protection. Set deletionProtection: true in its section of the stack's file."
    if resource.is_a(*_PROTECTED) and not resource.protect:
        yield (
            "isn't protected. Declare it with protect=True (ibkr:gateway.protectSettings, "
            "ibkr:database.deletionProtection)."
        )
    if resource.is_a("sql/databaseInstance:DatabaseInstance"):
        settings = resource.known("settings") or {}
        if not (settings.get("backupConfiguration") or {}).get("enabled"):
            yield "has no backups. Set ibkr:database.backups: true."


def labels(resource: Resource, stack: Stack) -> Iterator[str]:
    """Whose it is, on the bill and in the console."""
    database = resource.is_a("sql/databaseInstance:DatabaseInstance")
    of_user = resource.is_a(*allowed.USER_LABELLED)
    if database or of_user or resource.is_a(*allowed.LABELLED):
        key = "userLabels" if of_user else "labels"
        there = (resource.known("settings") or {}).get("userLabels") if database else resource.known(key)
        there = there or {}
        missing = [label for label in allowed.LABELS if not there.get(label)]
        if missing:
            yield f"lacks the labels {', '.join(missing)}. Pass labels=labels(settings) (stacks/database.py)."
    if resource.is_a("index/droplet:Droplet"):
        tags = resource.known("tags")
        if tags is not None and not any(str(tag).startswith("stack:") for tag in tags):
            yield "lacks its stack's tag, which firewall and sweep go by. Take them from broker.fleet.spec."


def told(resource: Resource, stack: Stack) -> Iterator[str]:
    """An alert that nobody gets is none: policies are on and name a channel, budgets have a threshold."""
    if resource.is_a("monitoring/alertPolicy:AlertPolicy"):
        if resource.known("enabled") is False:
            yield "is switched off. Delete it, or switch it on."
        # Before they are made, channels are unknown, and that is somebody.
        if not resource.inputs.get("notificationChannels"):
            yield "notifies nobody. Set ibkr:alerts.emails."
    if resource.is_a("billing/budget:Budget") and not resource.objects("thresholdRules"):
        yield "has no threshold, so it never tells anybody. Set ibkr:budget.thresholds."


def region(resource: Resource, stack: Stack) -> Iterator[str]:
    """Only where this organization wants to be."""
    droplet = resource.is_a("index/droplet:Droplet")
    regions = allowed.DROPLET_REGIONS if droplet else allowed.GOOGLE_REGIONS
    if not droplet and not resource.type.startswith("gcp:"):
        return
    for key in ("region", "location", "zone"):
        value = resource.known(key)
        if not isinstance(value, str) or value.lower() in ("", "global"):
            continue
        if key == "location" and value.lower() in allowed.GOOGLE_MULTI_REGIONS and not droplet:
            continue
        found = value.rpartition("-")[0] if key == "zone" else value
        if found not in regions:
            yield (
                f"is in {value}, which isn't allowed. Use one of {', '.join(sorted(regions))}, or allow "
                "it in policy/allowed.py."
            )


def size(resource: Resource, stack: Stack) -> Iterator[str]:
    """Machines no larger than their work."""
    if resource.is_a("compute/instance:Instance"):
        yield from _one_of("machine_type", resource.known("machineType"), allowed.MACHINE_TYPES)
    if resource.is_a("index/droplet:Droplet"):
        yield from _one_of("size", resource.known("size"), allowed.DROPLET_SIZES)
    if resource.is_a("vpcaccess/connector:Connector"):
        yield from _one_of("machine_type", resource.known("machineType"), allowed.CONNECTOR_MACHINE_TYPES)
        yield from _at_most("max_instances", resource.known("maxInstances"), allowed.MAX_CONNECTOR_INSTANCES)
    if resource.is_a("compute/disk:Disk"):
        yield from _at_most("size", resource.known("size"), allowed.MAX_DISK_GB)
    if resource.is_a("cloudrunv2/service:Service"):
        scaling = (resource.known("template") or {}).get("scaling") or {}
        instances = scaling.get("maxInstanceCount")
        yield from _at_most("max_instance_count", instances, allowed.MAX_SERVICE_INSTANCES)
    if resource.is_a("sql/databaseInstance:DatabaseInstance"):
        yield from _tier((resource.known("settings") or {}).get("tier"))


def _one_of(key: str, value: Any, choices: frozenset[str]) -> Iterator[str]:
    if isinstance(value, str) and value not in choices:
        yield f"has {key} {value}. Use one of {', '.join(sorted(choices))}, or allow it in policy/allowed.py."


def _at_most(key: str, value: Any, limit: int) -> Iterator[str]:
    if isinstance(value, (int, float)) and value > limit:
        yield f"has {key} {value:g}. Use at most {limit}, or allow more in policy/allowed.py."


def _tier(tier: Any) -> Iterator[str]:
    if not isinstance(tier, str) or tier in allowed.SHARED_DATABASE_TIERS:
        return
    custom = _CUSTOM_TIER.fullmatch(tier)
    if (
        custom is None
        or int(custom[1]) > allowed.MAX_DATABASE_CPUS
        or int(custom[2]) > allowed.MAX_DATABASE_MIB
    ):
        yield (
            f"has the tier {tier}. Use {', '.join(sorted(allowed.SHARED_DATABASE_TIERS))} or db-custom with "
            f"at most {allowed.MAX_DATABASE_CPUS} CPUs and {allowed.MAX_DATABASE_MIB} MiB, or allow more in "
            "policy/allowed.py."
        )
