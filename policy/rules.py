"""The rules by name. Each takes a resource and its stack, and yields what is wrong, with the remedy."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from policy import estate, exposure, network
from policy.model import Resource, Stack

Rule = Callable[[Resource, Stack], Iterator[str]]

RULES: dict[str, Rule] = {
    "no-public-address": network.public_address,
    "no-open-ingress": network.open_ingress,
    "gateway-ports-from-connector-only": network.gateway_ports,
    "no-plaintext-secret": exposure.plaintext_secret,
    "no-primitive-role": estate.primitive_role,
    "deletion-protection-in-production": estate.deletion_protection,
    "labels": estate.labels,
    "alerts-reach-somebody": estate.told,
    "allowed-region": estate.region,
    "machine-size": estate.size,
}
