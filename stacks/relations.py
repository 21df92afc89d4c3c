"""What has to agree between values, and what a stack of a given kind can't do without.

Each check takes the settings and yields problems. `parse` runs them also while single values are wrong,
with those values at their defaults, so that all problems are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Network
from itertools import combinations
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from stacks import droplet_relations, gateway_relations, service_relations
from stacks.problems import Problem, shown

if TYPE_CHECKING:
    from stacks.settings import Settings

_PRIVATE = tuple(IPv4Network(text) for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"))
_LOOPBACK = IPv4Network("127.0.0.0/8")
_LOGINS = ("ibkr:gatewayCredentials", "ibkr:paperCredentials", "ibkr:liveCredentials")
_PARTS = dict.fromkeys(_LOGINS, ("username", "password"))
# Alpaca's own trading endpoints, and what each means.
_ALPACA_MODES = {"api.alpaca.markets": "live", "paper-api.alpaca.markets": "paper"}


def overlaps(ranges: dict[str, IPv4Network]) -> Iterator[tuple[str, str]]:
    """The pairs of keys whose ranges share an address, the later key first."""
    for first, second in combinations(ranges, 2):
        if ranges[first].overlaps(ranges[second]):
            yield second, first


def _stack_name(settings: Settings) -> Iterator[Problem]:
    if not re.fullmatch(r"[a-z][a-z0-9-]{0,40}", settings.stack):
        yield Problem(
            "the stack's name",
            settings.stack,
            "becomes a label at Google Cloud and part of names at DigitalOcean: use lower-case letters, "
            "digits and hyphens, a letter first, 41 at most",
        )


def _ranges(settings: Settings) -> Iterator[Problem]:
    network = settings.network
    ranges = {
        "ibkr:network.subnetRange": network.subnet_range,
        "ibkr:network.connectorRange": network.connector_range,
        "ibkr:network.privateServicesRange": network.private_services_range,
    }
    for key, value in ranges.items():
        allowed = (_LOOPBACK,) if settings.local else _PRIVATE
        if not any(value.subnet_of(block) for block in allowed):
            remedy = (
                "the local cloud's addresses are loopback ones: use a range within 127.0.0.0/8"
                if settings.local
                else "isn't private; use a range within 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16"
            )
            yield Problem(key, str(value), remedy)
    for key, other in overlaps(ranges):
        remedy = f"overlaps {other} ({ranges[other]}); choose a range beside it"
        yield Problem(key, str(ranges[key]), remedy, because=(other,))
    if network.connector_range.prefixlen != 28:
        example = IPv4Network((network.connector_range.network_address, 28), strict=False)
        yield Problem(
            "ibkr:network.connectorRange",
            str(network.connector_range),
            f"a serverless VPC connector takes a /28 of its own; use for example {example}",
        )
    if network.private_services_range.prefixlen > 24:
        yield Problem(
            "ibkr:network.privateServicesRange",
            str(network.private_services_range),
            "is too small: Google's service networking needs a /24 or larger, and recommends a /16",
        )
    if network.subnet_range.prefixlen > 29:
        yield Problem(
            "ibkr:network.subnetRange",
            str(network.subnet_range),
            "is too small: Google reserves four addresses of each subnet, and takes a /29 or larger",
        )


def _firewall(settings: Settings) -> Iterator[Problem]:
    if not settings.network.deny_connector and not settings.local:
        yield Problem(
            "ibkr:network.denyConnector",
            "false",
            "without this rule Google's hidden one lets the connector reach all of the VPC; only the local "
            "cloud may go without it, to show that",
        )


def _secrets(settings: Settings) -> Iterator[Problem]:
    wanted: list[tuple[str, bool, object, str]] = [
        *(
            (
                key,
                settings.gateway.enabled and settings.declares_environment,
                credentials,
                f"the {mode} gateway can't log in without",
            )
            for mode, (key, credentials) in settings.gateway_logins.items()
        ),
        (
            "ibkr:databasePassword",
            settings.declares_database,
            settings.database_password,
            "the database's user needs one",
        ),
    ]
    for key, needed, value, why in wanted:
        if needed and value is None:
            paths = [f"{key}.{part}" for part in _PARTS.get(key, ())] or [key]
            commands = " and ".join(f"`pulumi config set --secret --path '{path}'`" for path in paths)
            because = ("ibkr:brokerType", "ibkr:marketDataSource", "ibkr:gateway.enabled", "ibkr:kind")
            yield Problem(key, "", f"is missing: {why}; set it with {commands}", because)


def _alpaca(settings: Settings) -> Iterator[Problem]:
    alpaca = settings.alpaca
    if not settings.declares_environment:
        return
    names = {"apiKey": alpaca.api_key, "secretKey": alpaca.secret_key}
    missing = [name for name, value in names.items() if value is None]
    uses_it = "alpaca" in (settings.broker_type, settings.market_data_source)
    if missing and (uses_it or len(missing) == 1):
        key = "ibkr:alpaca" if len(missing) == 2 else f"ibkr:alpaca.{missing[0]}"
        why = (
            "ibkr:brokerType or ibkr:marketDataSource is alpaca, which needs apiKey and secretKey"
            if uses_it
            else "one of Alpaca's two keys is of no use without the other"
        )
        commands = " and ".join(
            f"`pulumi config set --secret --path 'ibkr:alpaca.{name}'`" for name in missing
        )
        because = ("ibkr:brokerType", "ibkr:marketDataSource", "ibkr:kind")
        yield Problem(key, "", f"is missing: {why}; set it with {commands}", because)
    endpoints = {
        "endpoint": alpaca.endpoint,
        "dataEndpoint": alpaca.data_endpoint,
        "streamEndpoint": alpaca.stream_endpoint,
    }
    for name, value in endpoints.items():
        if value is not None and not settings.local and not value.startswith(("https://", "wss://")):
            remedy = "would carry the keys in clear over the network; use https:// or wss://"
            yield Problem(f"ibkr:alpaca.{name}", value, remedy)
    mode = _ALPACA_MODES.get(urlsplit(alpaca.endpoint or "").hostname or "")
    if mode is not None and mode != settings.trading_mode:
        yield Problem(
            "ibkr:alpaca.endpoint",
            alpaca.endpoint or "",
            f"is Alpaca's {mode} endpoint, and ibkr:tradingMode is {settings.trading_mode}; leave it out, so "
            "that the right one is taken",
            because=("ibkr:tradingMode",),
        )


def _environment(settings: Settings) -> Iterator[Problem]:
    if not settings.declares_environment:
        return
    if not settings.api.image:
        remedy = "is missing: the container image of the service, pinned by digest"
        yield Problem("ibkr:api.image", "", remedy)
    for key, value in (("issuer", settings.auth.issuer), ("jwksUrl", settings.auth.jwks_url)):
        if value is None:
            yield Problem(f"ibkr:auth.{key}", "", "is missing: whose bearer tokens does the service accept?")
    if settings.kind == "environment" and not settings.foundation_stack:
        yield Problem(
            "ibkr:foundationStack",
            "",
            "is missing: the stack that declares the network and the registry, for example "
            "organization/ibkr/foundation-staging",
        )
    if settings.market_data_source == "ibkr" and settings.broker_type not in ("ibkr", "ibeam", "simulated"):
        yield Problem(
            "ibkr:marketDataSource",
            "ibkr",
            f"needs an IBKR connection, but ibkr:brokerType is {settings.broker_type}",
            because=("ibkr:brokerType",),
        )


def _placeholders(settings: Settings) -> Iterator[Problem]:
    values = {
        "gcp:project": settings.project,
        "ibkr:api.image": settings.api.image,
        "ibkr:auth.issuer": settings.auth.issuer or "",
        "ibkr:auth.jwksUrl": settings.auth.jwks_url or "",
        "ibkr:ci.repository": settings.ci.repository or "",
        "ibkr:ci.stateBucket": settings.ci.state_bucket or "",
        **{f"ibkr:api.corsOrigins[{number}]": one for number, one in enumerate(settings.api.cors_origins)},
    }
    for key, value in values.items():
        if "your-" in value or "example.com" in value:
            yield Problem(key, shown(value), "is still the placeholder of the shipped file; put your own in")


CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _stack_name,
    _ranges,
    _firewall,
    *gateway_relations.CHECKS,
    _secrets,
    _alpaca,
    _environment,
    *droplet_relations.CHECKS,
    *service_relations.CHECKS,
    _placeholders,
)
