"""What has to agree about the gateway VM: its place, its ports, its memory, and what runs on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from stacks import catalog
from stacks.problems import Problem
from stacks.sections import API_PORTS

if TYPE_CHECKING:
    from stacks.settings import Settings

# MiB; see Gateway.machine_type
SMALLEST_SAFE_MEMORY = 1740
SMALLEST_POSSIBLE_MEMORY = 1024
# The same for two gateways.
SMALLEST_SAFE_FOR_TWO = 3840
SMALLEST_POSSIBLE_FOR_TWO = 2048


def _gateway(settings: Settings) -> Iterator[Problem]:
    gateway = settings.gateway
    if not settings.declares_environment:
        return
    if settings.broker_type == "ibkr" and not gateway.enabled:
        yield Problem(
            "ibkr:gateway.enabled",
            "false",
            "ibkr:brokerType is ibkr, which trades through the gateway; switch it on, or set another "
            "broker type first",
            because=("ibkr:brokerType",),
        )
    if not gateway.enabled:
        return
    if gateway.zone not in catalog.zones_of(settings.region):
        zones = ", ".join(catalog.zones_of(settings.region))
        yield Problem(
            "ibkr:gateway.zone",
            gateway.zone,
            f"isn't in gcp:region {settings.region}, which has {zones}",
            because=("gcp:region",),
        )
    yield from _gateway_port(settings)
    yield from _modes(settings)
    yield from _memory(settings)
    if gateway.address is not None:
        yield from _gateway_address(settings)
    for field, value in (
        ("gatewaySha256", gateway.software.gateway_sha256),
        ("ibcSha256", gateway.software.ibc_sha256),
    ):
        if value is None:
            source = gateway.software.gateway_source if "gateway" in field else gateway.software.ibc_source
            yield Problem(
                f"ibkr:gateway.software.{field}",
                "",
                f"is missing: download {source}, look at it, and pin what `sha256sum` says",
            )


def _gateway_port(settings: Settings) -> Iterator[Problem]:
    port = settings.gateway.port
    if port is None:
        return
    right = API_PORTS[settings.trading_mode]
    if port not in API_PORTS.values():
        yield Problem(
            "ibkr:gateway.port",
            str(port),
            f"isn't an IB Gateway port: 4001 is live, 4002 is paper. Leave it out, or use {right}",
        )
    elif port != right:
        yield Problem(
            "ibkr:gateway.port",
            str(port),
            f"contradicts ibkr:tradingMode {settings.trading_mode}, whose port is {right}; correct whichever "
            "is wrong, since one of them means real money",
            because=("ibkr:tradingMode",),
        )


def _gateway_address(settings: Settings) -> Iterator[Problem]:
    address, subnet = settings.gateway.address, settings.network.subnet_range
    if address is None:
        return
    reserved = {subnet[0], subnet[1], subnet[-2], subnet[-1]} if subnet.num_addresses >= 4 else set(subnet)
    if address not in subnet:
        remedy = f"isn't in ibkr:network.subnetRange {subnet}"
        yield Problem("ibkr:gateway.address", str(address), remedy, because=("ibkr:network.subnetRange",))
    elif address in reserved:
        yield Problem(
            "ibkr:gateway.address",
            str(address),
            f"is one of the four that Google keeps in each subnet; use for example {subnet[2]}",
        )


def _modes(settings: Settings) -> Iterator[Problem]:
    gateway = settings.gateway
    if gateway.mode not in (None, "both", settings.trading_mode):
        yield Problem(
            "ibkr:gateway.mode",
            str(gateway.mode),
            f"contradicts ibkr:tradingMode {settings.trading_mode}: the service would trade through a gateway"
            " that isn't there. Leave it out, or use both",
            because=("ibkr:tradingMode",),
        )
    paper, live = settings.paper_credentials, settings.live_credentials
    if settings.runs_both_gateways and paper and live:
        names = {login.username.get_secret_value().lower() for login in (paper, live)}
        if len(names) == 1:
            yield Problem(
                "ibkr:liveCredentials.username",
                "(secret)",
                "is the same IBKR user as ibkr:paperCredentials.username, and IBKR allows one session a user:"
                " they would take it from each other. Use the paper account's own user there",
            )


def _memory(settings: Settings) -> Iterator[Problem]:
    gateway = settings.gateway
    memory = catalog.machine_memory(gateway.machine_type) or 0
    key, because = "ibkr:gateway.machineType", ("ibkr:gateway.mode",)
    if settings.runs_both_gateways:
        possible, safe, use = SMALLEST_POSSIBLE_FOR_TWO, SMALLEST_SAFE_FOR_TWO, "e2-medium"
        need = "two IB Gateways (ibkr:gateway.mode both) take up to 1626"
    else:
        possible, safe, use = SMALLEST_POSSIBLE_MEMORY, SMALLEST_SAFE_MEMORY, "e2-small"
        need = "IB Gateway takes up to 813"
    if memory < possible:
        yield Problem(key, gateway.machine_type, f"has {memory} MiB, and {need}. Use {use}", because)
    elif memory < safe and not gateway.accept_small_machine:
        yield Problem(
            key,
            gateway.machine_type,
            f"has {memory} MiB, and {need} beside the system: it works until it doesn't. Use {use}, or set "
            "ibkr:gateway.acceptSmallMachine to true if you know that",
            because,
        )


CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (_gateway,)
