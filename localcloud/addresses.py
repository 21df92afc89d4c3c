"""Who has which address inside the cloud network. An address stays with its owner over restarts."""

from __future__ import annotations

import ipaddress
from typing import Any

from localcloud.cloud import CloudError
from localcloud.state import Store

_NOTES = "addresses"


class Addresses:
    """Hands out addresses of the cloud network (`prefix`.0.0/16), one per owner and range.

    `prefix`.128.0/18 plays the internet's addresses; the rest is for what stacks declare.
    """

    def __init__(self, store: Store, prefix: str) -> None:
        self._store = store
        self._public = f"{prefix}.128.0/18"

    def allocate_public(self, owner: str) -> str:
        """A public address, the same for this owner until `release`."""
        return self.allocate_in(self._public, owner)

    def allocate_in(self, cidr: str, owner: str) -> str:
        """The lowest free address of `cidr`, the same for this owner until `release`.

        Google keeps the first two and the last two addresses of a subnet's primary range for
        itself (VPC documentation, "Unusable addresses in IPv4 subnet ranges"). Raises
        `CloudError` 400 when the range is used up.
        """
        held: dict[str, Any] = self._store.notes(_NOTES).get(owner, {})
        if cidr in held:
            return str(held[cidr])
        network = ipaddress.ip_network(cidr)
        taken = self.taken()
        last = int(network.broadcast_address) - 1
        for number in range(int(network.network_address) + 2, last):
            address = str(ipaddress.ip_address(number))
            if address not in taken:
                self._store.note(_NOTES, owner, {**held, cidr: address})
                return address
        raise CloudError(
            400,
            f"IP space of {cidr} is exhausted. No free address for {owner}.",
            "IP_SPACE_EXHAUSTED",
        )

    def claim(self, address: str, owner: str) -> None:
        """Take one given address. Raises `CloudError` 400 when another owner has it."""
        holder = self.taken().get(address)
        if holder not in (None, owner):
            raise CloudError(
                400, f"IP '{address}' is already being used by another resource ({holder}).",
                "IP_IN_USE_BY_ANOTHER_RESOURCE",
            )  # fmt: skip
        held = self._store.notes(_NOTES).get(owner, {})
        self._store.note(_NOTES, owner, {**held, f"{address}/32": address})

    def release(self, owner: str) -> None:
        """Give back everything the owner holds."""
        self._store.forget(_NOTES, owner)

    def of(self, owner: str) -> list[str]:
        """The addresses that the owner holds."""
        return list(self._store.notes(_NOTES).get(owner, {}).values())

    def taken(self) -> dict[str, str]:
        """Address to owner, for all that is handed out."""
        return {
            address: owner for owner, held in self._store.notes(_NOTES).items() for address in held.values()
        }
