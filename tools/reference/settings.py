"""The reference of settings: each key or variable with its type, its default and what it means."""

import dataclasses
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Le
from pydantic import BaseModel, SecretStr

from broker.factory import BrokerSettings
from broker.risk.limits import LIVE, PAPER, Limits
from broker.service.field_comments import field_comments
from broker.service.fleet_settings import FleetEnvironment
from broker.service.settings import ServiceSettings
from stacks.section import Section
from stacks.sections import Config
from stacks.sections import Limits as LimitsSection

#: the variables of the broker's settings, by their field
BROKER = {
    "broker_type": "BROKER_TYPE",
    "trading_mode": "IBKR_TRADING_MODE",
    "gateway_host": "IBKR_GATEWAY_HOST",
    "gateway_port": "IBKR_GATEWAY_PORT",
    "second_gateway_port": "IBKR_SECOND_GATEWAY_PORT",
    "client_id": "IBKR_CLIENT_ID",
    "account": "IBKR_ACCOUNT",
    "alpaca_api_key": "ALPACA_API_KEY",
    "alpaca_secret_key": "ALPACA_SECRET_KEY",
    "alpaca_paper": "ALPACA_PAPER",
    "alpaca_endpoint": "ALPACA_ENDPOINT",
    "alpaca_data_endpoint": "ALPACA_DATA_ENDPOINT",
    "alpaca_stream_endpoint": "ALPACA_STREAM_ENDPOINT",
    "ibeam_url": "IBEAM_URL",
    "ibeam_ca_file": "IBEAM_CA_FILE",
    "ibeam_token": "IBEAM_TOKEN",
    "ibeam_confirm": "IBEAM_CONFIRM",
    "ibeam_take_over": "IBEAM_TAKE_OVER",
    "verification_days": "LIVE_VERIFICATION_DAYS",
    "alert_urls": "ALERT_URLS",
}
_SECRET = {"ALPACA_API_KEY", "ALPACA_SECRET_KEY", "IBEAM_TOKEN", "ALERT_URLS"}
#: variables that no model holds: name, type, default, meaning
OTHERS = (
    ("IBEAM_ACCOUNT_ID", "text", "", "as IBKR_ACCOUNT, over IBeam (IBEAM_ACCOUNT is IBeam's own: the login)"),
    ("BROKER_JOURNAL", "path", "~/.local/state/broker/orders.sqlite",
     "where the package keeps its journal where there is no DATABASE_URL"),
    ("BROKER_HALT", "text", "", "anything but 0, false or no halts all orders, and is told as the reason"),
    ("BROKER_HALT_FILE", "path", "", "a file that halts all orders while it exists"),
    ("MARKET_DATA_SOURCE", "yfinance, ibkr, alpaca", "the broker's own", "where quotes come from"),
    ("ALPACA_DATA_FEED", "text", "iex", "which of Alpaca's feeds quotes come from"),
    ("FLEET_ENABLED", "true or false", "false", "whether users may connect IBKR accounts of their own"),
)  # fmt: skip
#: keys of Pulumi's providers that the program reads or passes on
PROVIDER_KEYS = (
    ("gcp:project", "text", "", "the Google project; `local` is the local cloud"),
    ("gcp:region", "text", "us-west1", "where everything is that has a region"),
    (
        "digitalocean:token",
        "text, **secret**",
        "",
        "what Pulumi makes droplets with; or DIGITALOCEAN_TOKEN in the shell",
    ),
)
HEAD = """\
# Settings

Made by `make docs` from the settings' models: change the comments beside their fields, not this page. What is
wrong is refused when a program starts or a stack is previewed, all at once, with what to write instead.
"""


STACKS = """\
## A stack's configuration

In `Pulumi.<stack>.yaml`. Secrets are set by `pulumi config set --secret --path '<key>'`, which encrypts them;
`make preview` shows what a change would do.
"""
SERVICE = """\
## The service's environment

What the stack sets for a deployed service, and a shell for `python -m broker.service serve` by hand.
"""
_REQUIRED = "required"
_BY_MODE = ("paper", "live")
Row = tuple[str, ...]


def page() -> str:
    """docs/settings.md."""
    parts = [
        HEAD,
        STACKS,
        _table("key", PROVIDER_KEYS),
        _table("key", _keys(Config, "ibkr:", sections=False)),
    ]
    for name, field in Config.model_fields.items():
        section = _section(field.annotation)
        if section:
            about = _keys_for_names(" ".join((section.__doc__ or "").split()))
            parts.append(f"### `ibkr:{field.alias}`\n\n{about}")
            if section is LimitsSection:
                parts.append(_table("key", _limits(f"ibkr:{name}."), _BY_MODE))
            else:
                parts.append(_table("key", _keys(section, f"ibkr:{field.alias}.")))
    fleet = [row for row in _variables(FleetEnvironment) if row[0] != "STACK"]
    parts += [SERVICE, _table("variable", _variables(ServiceSettings))]
    parts += ["### The broker\n\nThe package reads these wherever it runs ([broker.md](broker.md))."]
    parts += [_table("variable", [*_broker(), *OTHERS[:-1]])]
    parts += ["### Limits of orders\n\nAmounts are in the account's currency; `none` is no such limit."]
    parts += [_table("variable", _limits("RISK_"), _BY_MODE)]
    parts += ["### Users' own gateways\n\nRead where `FLEET_ENABLED` is true ([fleet.md](fleet.md))."]
    parts += [_table("variable", [OTHERS[-1], *fleet])]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _table(first: str, rows: Iterable[Row], defaults: tuple[str, ...] = ("default",)) -> str:
    head = [first, "type", *defaults, "meaning"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, kind, *given, meaning in rows:
        shown = [value if value in ("", _REQUIRED) else f"`{value}`" for value in given]
        cells = [f"`{name}`", kind, *shown, meaning[:1].upper() + meaning[1:].rstrip(".")]
        lines.append(
            "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"
        )
    return "\n".join(lines)


def _variables(model: type[BaseModel]) -> Iterator[Row]:
    comments = field_comments(model)
    for name, field in model.model_fields.items():
        default = _REQUIRED if field.is_required() else _shown(field.default)
        yield name.upper(), _kind(field.annotation, field.metadata), default, comments.get(name, "")


def _keys(model: type[BaseModel], prefix: str, *, sections: bool = True) -> Iterator[Row]:
    comments = field_comments(model)
    for name, field in model.model_fields.items():
        key, said = f"{prefix}{field.alias}", _keys_for_names(comments.get(name, ""))
        inner = _section(field.annotation)
        if inner is None:
            default = _REQUIRED if field.is_required() else _shown(field.default)
            yield key, _kind(field.annotation, field.metadata), default, said
            of_each = (
                _section(get_args(field.annotation)[0]) if get_origin(field.annotation) is tuple else None
            )
            if of_each:
                yield from _keys(of_each, f"{key}[].")
        elif sections:
            yield from _keys(inner, f"{key}.")


def _keys_for_names(text: str) -> str:
    """Sections' and fields' names in a text as the keys that they are."""
    for name, field in Config.model_fields.items():
        text = text.replace(f"`Config.{name}`", f"`ibkr:{field.alias}`")
        if section := _section(field.annotation):
            for inner, one in section.model_fields.items():
                text = text.replace(f"`{section.__name__}.{inner}`", f"`ibkr:{field.alias}.{one.alias}`")
            text = text.replace(f"`{section.__name__}`", f"`ibkr:{field.alias}`")
    return text


def _section(annotation: Any) -> type[Section] | None:
    """The part of the configuration that a key holds, unless it is one value or a list."""
    given = [part for part in get_args(annotation) or (annotation,) if part is not NoneType]
    if get_origin(annotation) is not tuple and len(given) == 1 and isinstance(given[0], type):
        return given[0] if issubclass(given[0], Section) else None
    return None


def _broker() -> Iterator[Row]:
    comments = field_comments(BrokerSettings)
    words = {bool: "true or false", int: "whole number"}
    for field in dataclasses.fields(BrokerSettings):
        if field.name in BROKER:
            name = BROKER[field.name]
            kind = words.get(type(field.default), "text") + (", **secret**" if name in _SECRET else "")
            yield name, kind, _shown(field.default or None), comments.get(field.name, "")


def _limits(prefix: str) -> Iterator[Row]:
    comments = field_comments(Limits)
    words = {
        "bool": "true or false",
        "float": "number",
        "float | None": "number",
        "int | None": "whole number",
    }
    for field in dataclasses.fields(Limits):
        alias = LimitsSection.model_fields[field.name].alias or ""
        name = alias if prefix.startswith("ibkr:") else field.name.upper()
        defaults = [_limit(getattr(of_mode, field.name)) for of_mode in (PAPER, LIVE)]
        yield (
            f"{prefix}{name}",
            words.get(str(field.type), "tickers"),
            *defaults,
            comments.get(field.name, ""),
        )


def _limit(value: float | frozenset[str] | None) -> str:
    if value is None or isinstance(value, frozenset):
        return "none"
    return _shown(value) if isinstance(value, bool) else f"{value:.12g}"


def _shown(value: object) -> str:
    """A default, as one would write it."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(str, value))}]"
    return "" if value in (None, "") else str(value)


def _kind(annotation: Any, metadata: Iterable[Any] = ()) -> str:
    """A type in a word or two; what may be written, where that is a short list or a range of numbers."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _kind(parts[0], [*parts[1:], *metadata])
    if origin in (Union, UnionType):
        return _kind(next(part for part in parts if part is not NoneType), metadata)
    if origin is Literal:
        return ", ".join(str(part) for part in parts)
    if origin is tuple:
        return "list"
    words = {bool: "true or false", str: "text", SecretStr: "text, **secret**"}
    words |= {IPv4Network: "range", IPv4Address: "address"}
    if annotation in (int, float):
        return _number("whole number" if annotation is int else "number", metadata)
    return words[annotation]


def _number(word: str, metadata: Iterable[Any]) -> str:
    limits = [found for one in metadata for found in getattr(one, "metadata", [one])]
    low = next((one.ge for one in limits if isinstance(one, Ge)), None)
    high = next((one.le for one in limits if isinstance(one, Le)), None)
    if low is not None and high is not None:
        return f"{word}, {low} to {high}"
    return word if low is None else f"{word}, {low} or more"
