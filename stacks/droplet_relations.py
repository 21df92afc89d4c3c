"""What has to agree about droplets: declared users, the run-time fleet, and the broker `ibeam`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from broker.fleet.spec import is_snapshot
from stacks.problems import Problem

if TYPE_CHECKING:
    from stacks.sections import IBeamUser
    from stacks.settings import Settings

_SET_WITH = "set it with `pulumi config set --secret --path '{}'`"
# Docker's own form: the tag is for people, and the digest decides.
_PINNED = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}", re.ASCII)


def _users(settings: Settings) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    logins: dict[str, str] = {}
    if not settings.declares_environment:
        return
    if settings.gateway.enabled:
        for key, credentials in settings.gateway_logins.values():
            if credentials:
                logins.setdefault(credentials.username.get_secret_value().lower(), f"{key}.username")
    for number, user in enumerate(settings.ibeam.users):
        key = f"ibkr:ibeam.users[{number}]"
        droplet = user.droplet_name
        if not droplet:
            yield Problem(f"{key}.name", "", "is missing: it becomes a part of the droplet's name")
        elif droplet in seen:
            yield Problem(
                f"{key}.name",
                user.name,
                f"makes the droplet {droplet}, as ibkr:ibeam.users[{seen[droplet]}] does; remove one, or "
                "give it another index",
            )
        seen.setdefault(droplet, number)
        for field in ("username", "password"):
            if getattr(user, field) is None:
                yield Problem(f"{key}.{field}", "", f"is missing; {_SET_WITH.format(f'{key}.{field}')}")
        if user.username is not None:
            login = user.username.get_secret_value().lower()
            if login in logins:
                yield Problem(
                    f"{key}.username",
                    "(secret)",
                    f"is the same IBKR user as {logins[login]}, and IBKR allows one session a user: they "
                    "would take it from each other. Use a user of its own",
                )
            logins.setdefault(login, f"{key}.username")
    if settings.ibeam.users and not settings.ibeam.hold_credentials:
        yield Problem(
            "ibkr:ibeam.holdCredentials",
            "false",
            "declared users mean that this stack holds their IBKR passwords; set it to true if they know "
            "and want that, or remove ibkr:ibeam.users",
        )


def _fleet(settings: Settings) -> Iterator[Problem]:
    fleet = settings.fleet
    if not settings.runs_fleet:
        return
    if not settings.ibeam.hold_credentials and not settings.ibeam.users:  # else it is said already
        yield Problem(
            "ibkr:ibeam.holdCredentials",
            "false",
            "with ibkr:fleet.enabled the service keeps its users' IBKR passwords, encrypted; set it to true "
            "if they know and want that, or switch the fleet off",
            because=("ibkr:fleet.enabled",),
        )
    if settings.digitalocean_token is None:
        key = "ibkr:digitaloceanToken"
        remedy = f"is missing: the fleet's droplets are made with it; {_SET_WITH.format(key)}"
        yield Problem(key, "", remedy, because=("ibkr:fleet.enabled",))
    image = settings.fleet_image
    if is_snapshot(image):
        yield Problem(
            "ibkr:fleet.image",
            image,
            "is a private snapshot, whose droplets can't enrol with the service: use a stock image, such "
            "as ubuntu-24-04-x64",
            because=("ibkr:ibeam.image",),
        )
    if settings.local and fleet.service_url is None:
        yield Problem(
            "ibkr:fleet.serviceUrl",
            "",
            "is missing: the local cloud's services have no names; its first one is at "
            "http://127.20.191.2:8080",
        )
    if not settings.api.public and fleet.service_url is None:
        yield Problem(
            "ibkr:api.public",
            "false",
            "droplets enrol at the service without a Google identity: make it public (the app itself asks "
            "for tokens), or let ibkr:fleet.serviceUrl name a way in for them",
            because=("ibkr:fleet.enabled",),
        )
    for name, value in (("serviceUrl", fleet.service_url), ("digitaloceanApi", fleet.digitalocean_api)):
        if value is None:
            continue
        if not settings.local and not value.startswith("https://"):
            yield Problem(f"ibkr:fleet.{name}", value, "would carry tokens in clear; use https://")
        elif urlsplit(value).query or urlsplit(value).fragment:
            yield Problem(f"ibkr:fleet.{name}", value, "paths are added to it: leave out ? and #")


def _container(settings: Settings) -> Iterator[Problem]:
    """Pinned wherever a droplet may pull it; the local cloud has one image, so its declared ones needn't."""
    image = settings.ibeam.container
    pulls = settings.runs_fleet or (settings.declares_environment and settings.ibeam.users)
    if not pulls or _PINNED.fullmatch(image) or (settings.local and not settings.runs_fleet):
        return
    if "your-" in image:
        remedy = "is still the placeholder of the shipped file; put your own in"
    else:
        remedy = "isn't pinned, and a tag may mean another image tomorrow"
    name = image.partition("@")[0]
    yield Problem(
        "ibkr:ibeam.container",
        image,
        f"{remedy}: write {name}@sha256:<64 hexadecimal digits>, which `docker buildx imagetools inspect "
        f"{name}` shows as Digest",
    )


def _digitalocean(settings: Settings) -> Iterator[Problem]:
    if settings.uses_digitalocean and not settings.has_digitalocean_login:
        yield Problem(
            "digitalocean:token",
            "",
            "is missing, and this stack declares droplets or a service that makes them; set it with "
            "`pulumi config set --secret digitalocean:token`, or DIGITALOCEAN_TOKEN in the environment",
        )


def _default_droplet(settings: Settings) -> Iterator[Problem]:
    wanted, users = settings.ibeam.default_droplet, settings.ibeam.users
    names = ", ".join(user.droplet_name for user in users)
    if not settings.declares_environment:
        return
    if wanted and settings.default_user is None:
        yield Problem(
            "ibkr:ibeam.defaultDroplet",
            wanted,
            f"isn't a droplet of ibkr:ibeam.users, which make {names or 'none'}",
            because=("ibkr:ibeam.users",),
        )
    if settings.broker_type != "ibeam":
        return
    if not users:
        yield Problem(
            "ibkr:brokerType",
            "ibeam",
            "trades through a declared droplet, but there is none: declare its user in ibkr:ibeam.users",
            because=("ibkr:ibeam",),
        )
    elif settings.default_user is None and not wanted:
        yield Problem(
            "ibkr:ibeam.defaultDroplet",
            "",
            f"is missing: ibkr:brokerType ibeam trades through one droplet, and there are {names}",
            because=("ibkr:ibeam.users",),
        )
    elif settings.default_user is not None:
        yield from _default_mode(settings, settings.default_user)


def _default_mode(settings: Settings, user: IBeamUser) -> Iterator[Problem]:
    mode = "live" if user.environment == "live" else "paper"
    if mode != settings.trading_mode:
        yield Problem(
            "ibkr:tradingMode",
            settings.trading_mode,
            f"contradicts droplet {user.droplet_name}, which ibkr:brokerType ibeam trades through and whose "
            f"login is {mode}; correct whichever is wrong, since one of them means real money",
            because=("ibkr:ibeam.users", "ibkr:ibeam.defaultDroplet"),
        )


CHECKS: tuple[Callable[[Settings], Iterator[Problem]], ...] = (
    _users,
    _fleet,
    _container,
    _digitalocean,
    _default_droplet,
)
