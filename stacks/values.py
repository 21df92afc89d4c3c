"""The types of single values in the configuration: what may be written, and what to write instead.

A validator's message is the remedy that a person reads; `settings` puts the key before it.
"""

from __future__ import annotations

import math
import re
from ipaddress import IPv4Network, ip_network
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, SecretStr

from broker.fleet.spec import droplet_name
from broker.service.origins import check_origin
from stacks import catalog
from stacks.problems import did_you_mean

# Serverless VPC Access: "fewer than 21 characters, and a hyphen counts as two"
# (cloud.google.com/run/docs/configuring/vpc-connectors).
CONNECTOR_NAME_LIMIT = 21


def _cidr(value: object) -> IPv4Network:
    if isinstance(value, IPv4Network):
        return value
    text = str(value)
    if "/" not in text:
        raise ValueError(f"a range needs its size, for example {text}/24")
    try:
        return IPv4Network(ip_network(text, strict=True))
    except ValueError:
        pass
    try:
        return_to = ip_network(text, strict=False)
    except ValueError:
        raise ValueError("isn't an IPv4 range; write it as 10.10.0.0/24") from None
    raise ValueError(f"has bits set behind its size; write {return_to}")


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?", value):
        raise ValueError("use lower-case letters, digits and hyphens, a letter first")
    return value


def _connector_name(value: str) -> str:
    length = len(value) + value.count("-")
    if length >= CONNECTOR_NAME_LIMIT:
        raise ValueError(
            f"counts {length} characters, since a hyphen counts as two; Google allows fewer than "
            f"{CONNECTOR_NAME_LIMIT}: choose a shorter name"
        )
    return _name(value)


def _region(value: str) -> str:
    if value not in catalog.GCP_ZONES:
        raise ValueError(f"isn't a Google Cloud region{did_you_mean(value, catalog.GCP_ZONES)}")
    return value


def _zone(value: str) -> str:
    region, _, letter = value.rpartition("-")
    if region not in catalog.GCP_ZONES:
        known = [zone for name in catalog.GCP_ZONES for zone in catalog.zones_of(name)]
        raise ValueError(f"isn't a Google Cloud zone{did_you_mean(value, known)}")
    if letter not in catalog.GCP_ZONES[region] or len(letter) != 1:
        raise ValueError(f"isn't a zone of {region}, which has {', '.join(catalog.zones_of(region))}")
    return value


def _machine_type(value: str) -> str:
    if catalog.machine_memory(value) is None:
        raise ValueError(f"isn't a machine type{did_you_mean(value, catalog.GCP_MACHINE_TYPES)}")
    return value


def _sql_tier(value: str) -> str:
    if value not in catalog.SQL_TIERS and not catalog.SQL_CUSTOM_TIER.fullmatch(value):
        raise ValueError(f"use one of {', '.join(catalog.SQL_TIERS)} or db-custom-<cpus>-<MiB>")
    return value


def _droplet_region(value: str) -> str:
    if value not in catalog.DIGITALOCEAN_REGIONS:
        raise ValueError(f"isn't a DigitalOcean region{did_you_mean(value, catalog.DIGITALOCEAN_REGIONS)}")
    return value


def _demo_size(value: str) -> str:
    if value not in catalog.DIGITALOCEAN_SIZES:
        raise ValueError(f"isn't a droplet size{did_you_mean(value, catalog.DIGITALOCEAN_SIZES)}")
    return value


def _droplet_size(value: str) -> str:
    if catalog.DIGITALOCEAN_SIZES[_demo_size(value)] < 1024:
        raise ValueError("is too small: the gateway and the browser of its login need 1 GB; use s-1vcpu-1gb")
    return value


def _user_name(value: str) -> str:
    droplet_name(value, "paper", 1)  # its SpecError, a ValueError, names the remedy
    return value


def _source(value: str) -> str:
    if not re.fullmatch(r"gs://[a-z0-9._-]+/.+|https://.+", value):
        raise ValueError("use gs://<your private bucket>/<object>, or an https:// address")
    return value


def _alert_urls(value: SecretStr) -> SecretStr:
    # The value isn't shown: what is no URL here may well be the rest of a token.
    if not all(re.match(r"[a-z][a-z0-9+.-]*://.", part) for part in re.split(r"[\s,]+", _plain(value))):
        raise ValueError("use apprise's URLs, such as tgram://TOKEN/CHAT, with commas between them")
    return value


def _plain(value: SecretStr) -> str:
    return value.get_secret_value().strip()


def _limit(value: object) -> str:
    """A limit as the service reads it: a number, or none. Numbers may be written without quotes."""
    text = str(value).strip().lower()
    try:
        good = text == "none" or 0 <= float(text) < math.inf
    except ValueError:
        good = False
    if isinstance(value, bool) or not good:
        raise ValueError("use a number from 0 on, or none for no such limit")
    return text


def _whole_limit(value: str) -> str:
    if value != "none" and not value.isdigit():
        raise ValueError("use a whole number, or none for no such limit")
    return value


def _seconds(value: str) -> str:
    if value == "none":
        raise ValueError("use a number of seconds; a quote of any age would be no check")
    return value


def _tickers(values: tuple[str, ...]) -> tuple[str, ...]:
    # An empty list of what is allowed could mean all or nothing.
    if not values or not all(re.fullmatch(r"[A-Z][A-Z0-9]{0,11}(\.[A-Z0-9]{1,4})?", one) for one in values):
        raise ValueError("name at least one ticker, in upper case, such as AAPL or BRK.B; or leave it out")
    return values


def _thresholds(values: tuple[float, ...]) -> tuple[float, ...]:
    if not values or list(values) != sorted(set(values)) or not all(0 < one <= 10 for one in values):
        raise ValueError("use shares of the amount, each once, the smallest first: [0.5, 0.9, 1.0]")
    return values


def _fingerprints(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values or not all(re.fullmatch(r"[0-9A-F]{40}", one) for one in values):
        raise ValueError("name at least one key by its fingerprint: 40 digits of 0-9 and A-F")
    return values


def _one_line(value: SecretStr) -> SecretStr:
    if not value.get_secret_value().strip():
        raise ValueError("is empty; set it with `pulumi config set --secret --path`")
    return value


def _text(value: object) -> object:
    """A snapshot's number may be written without quotes."""
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def matching(pattern: str, remedy: str) -> AfterValidator:
    """Text of one form; the remedy says which in words."""
    form = re.compile(pattern)

    def check(value: str) -> str:
        if not form.fullmatch(value):
            raise ValueError(remedy)
        return value

    return AfterValidator(check)


def other_mode(mode: TradingMode) -> TradingMode:
    """Live for paper, paper for live."""
    return "live" if mode == "paper" else "paper"


Cidr = Annotated[IPv4Network, BeforeValidator(_cidr)]
CloudName = Annotated[str, AfterValidator(_name)]
Region = Annotated[str, AfterValidator(_region)]
Zone = Annotated[str, AfterValidator(_zone)]
Secret = Annotated[SecretStr, BeforeValidator(_text), AfterValidator(_one_line)]
Sha256 = Annotated[
    str, matching(r"[0-9a-f]{64}", "use the 64 hexadecimal digits that `sha256sum` prints for the file")
]
Url = Annotated[str, matching(r"https?://.+", "use an address that begins with https://")]
Origin = Annotated[str, AfterValidator(check_origin)]
StreamUrl = Annotated[str, matching(r"wss?://.+", "use an address that begins with wss://")]
# "none": no such limit; None: the trading mode's default (broker.risk.limits).
Limit = Annotated[str, BeforeValidator(_limit)]
BillingAccount = Annotated[
    str,
    matching(
        r"[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}",
        "use the account's id as `gcloud billing accounts list` shows it: 012345-6789AB-CDEF01",
    ),
]
Thresholds = Annotated[tuple[float, ...], AfterValidator(_thresholds)]
Tickers = Annotated[tuple[str, ...], AfterValidator(_tickers)]
Fingerprints = Annotated[tuple[str, ...], AfterValidator(_fingerprints)]
# A number that may be written without quotes.
Text = Annotated[str, BeforeValidator(_text)]
ConnectorName = Annotated[str, AfterValidator(_connector_name)]
MachineType = Annotated[str, AfterValidator(_machine_type)]
SqlTier = Annotated[str, AfterValidator(_sql_tier)]
DropletRegion = Annotated[str, AfterValidator(_droplet_region)]
DropletSize = Annotated[str, AfterValidator(_droplet_size)]
DemoSize = Annotated[str, AfterValidator(_demo_size)]
UserName = Annotated[str, AfterValidator(_user_name)]
Source = Annotated[str, AfterValidator(_source)]
AlertUrls = Annotated[Secret, AfterValidator(_alert_urls)]
WholeLimit = Annotated[Limit, AfterValidator(_whole_limit)]
Seconds = Annotated[Limit, AfterValidator(_seconds)]
TradingMode = Literal["paper", "live"]
GatewayMode = Literal["paper", "live", "both"]
BrokerType = Literal["alpaca", "ibkr", "ibeam", "simulated"]
MarketDataSource = Literal["yfinance", "ibkr", "alpaca"]
DropletEnvironment = Literal["live", "paper", "demo"]
