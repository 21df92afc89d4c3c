"""What a user's IBeam droplet is: name, size, region, image, tags and user data, from plain values.

The Pulumi component and the service both call `droplet_spec`, so a declared droplet and one made at run
time are the same machine. It leaves out what only a cloud can say (is there such an image, is the quota
left), and it decides nothing about ownership from a name: names aren't unique at DigitalOcean, and two
users may be written alike once they are sanitised. Ownership is in the tags.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import re
from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from broker.fleet.cloud_init import DROPLET_USER_DATA_LIMIT, render

Environment = Literal["live", "paper", "demo"]
Manager = Literal["pulumi", "service"]

_NAME_LIMIT = 63
"""A droplet's name becomes its host name, one DNS label (RFC 1035); DigitalOcean itself takes 255."""

_SHORTEST_TOKEN = 43
"""Characters that 256 bits have in base64 without padding; in hex they have more."""

_KEY_BYTES = 32

_WRITABLE = re.compile(r"[A-Za-z0-9._@+ -]+")
_TAG = re.compile(r"[A-Za-z0-9_:-]{1,255}")


class SpecError(ValueError):
    """A droplet can't be described from what was given: the message names the value and the remedy.

    Nothing was made. A credential's text is never part of the message.
    """


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login at IBKR. Its repr hides the password, so neither a log nor a traceback shows it.

    `gateway_token` is what the service shows to the proxy before the gateway. A declared droplet of a stock
    image has to be told of it, and gets its hash; a snapshot has no proxy.
    """

    username: str
    password: str = field(repr=False)
    gateway_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Enrolment:
    """What a run-time droplet gets instead of credentials: how it makes itself known to the service.

    `token` works once and for half an hour; the service keeps its hash. `push_key` is the public half (base64
    of 32 bytes) of the Ed25519 key that the service signs what it pushes with.
    """

    service_url: str
    token: str = field(repr=False)
    account_id: str
    push_key: str


@dataclass(frozen=True, slots=True)
class DropletSettings:
    """What a stack's config says about its droplets.

    `client_address` is the only address that may reach the gateway: the reserved address of the NAT.
    `image` is a slug (a stock Ubuntu, which cloud-init turns into a gateway) or the number of a private
    snapshot as the integration document has it; such a number belongs to one DigitalOcean team.
    `demo_size` is smaller: IBeam needs some 140 MB and a browser at login, and a demo can wait for swap.
    `ibeam_image` is the container image, best with its digest; a private snapshot has its own.
    """

    client_address: str
    region: str = "nyc1"
    size: str = "s-1vcpu-1gb"
    demo_size: str = "s-1vcpu-512mb-10gb"
    image: str = "ubuntu-24-04-x64"
    ibeam_image: str = "voyz/ibeam:0.5.12"


@dataclass(frozen=True, slots=True)
class DropletSpec:
    """What DigitalOcean is asked for. `user_data` holds credentials or an enrolment's token: a secret."""

    name: str
    size: str
    region: str
    image: str
    tags: tuple[str, ...]
    user_data: str = field(repr=False)

    @property
    def api_image(self) -> int | str:
        """The image as the REST API wants it: a snapshot by its integer id, a stock image by its slug."""
        return int(self.image) if is_snapshot(self.image) else self.image


def droplet_spec(
    stack: str,
    user: str,
    environment: Environment,
    index: int,
    settings: DropletSettings,
    login: Credentials | Enrolment,
    manager: Manager,
    account: str = "",
) -> DropletSpec:
    """Describes one user's droplet.

    `account` is the opaque id of its owner; without it, it is the enrolment's, or derived from the others.

    Raises SpecError for a value that no droplet can have, TemplateError if the templates are broken.
    """
    if isinstance(login, Enrolment):
        if account not in ("", login.account_id):
            raise SpecError(f"the droplet is of account {account!r} and enrols as {login.account_id!r}")
        account = login.account_id
    return DropletSpec(
        name=droplet_name(user, environment, index),
        size=droplet_size(environment, settings),
        region=settings.region,
        image=settings.image,
        tags=droplet_tags(stack, user, environment, index, manager, account),
        user_data=droplet_user_data(environment, settings, login),
    )


def droplet_name(user: str, environment: Environment, index: int) -> str:
    """`{username}-ib-{environment}-{index}`, as a host name can be written. Raises SpecError."""
    _check_environment(environment)
    if index < 0:
        raise SpecError(f"droplet index {index} is negative: count from 0 or 1")
    if not _WRITABLE.fullmatch(user):
        raise SpecError(
            f"user name {user!r} can't be part of a droplet's name: "
            "use ASCII letters, digits and . _ @ + - or spaces between them"
        )
    sanitised = re.sub(r"[^a-z0-9]+", "-", user.lower()).strip("-")
    if not sanitised:
        raise SpecError(f"user name {user!r} leaves nothing for a droplet's name: give it a letter or digit")
    name = f"{sanitised}-ib-{environment}-{index}"
    if len(name) > _NAME_LIMIT:
        raise SpecError(
            f"droplet name {name!r} has {len(name)} characters and a host name {_NAME_LIMIT} at most: "
            f"shorten user name {user!r} by {len(name) - _NAME_LIMIT}"
        )
    return name


def droplet_size(environment: Environment, settings: DropletSettings) -> str:
    """A demo has the smaller size."""
    return settings.demo_size if environment == "demo" else settings.size


def account_of(stack: str, user: str, environment: Environment, index: int) -> str:
    """The opaque id of a declared droplet's owner, from the user's name as it was written.

    80 bits of a hash: users who sanitise alike stay apart, and the tag doesn't spell the name out.
    """
    identity = "\x00".join((stack, user, environment, str(index)))
    return hashlib.sha256(identity.encode()).hexdigest()[:20]


def droplet_tags(
    stack: str, user: str, environment: Environment, index: int, manager: Manager, account: str = ""
) -> tuple[str, ...]:
    """Who owns a droplet: stack, manager and account, plus `ibeam`, which the firewall goes by.

    Raises SpecError.
    """
    if manager not in get_args(Manager):
        raise SpecError(f"droplet manager {manager!r} is unknown: use pulumi or service")
    owner = account or account_of(stack, user, environment, index)
    tags = ("ibeam", f"stack:{stack}", f"manager:{manager}", f"account:{owner}")
    for tag in tags:
        if not _TAG.fullmatch(tag):
            raise SpecError(
                f"{tag!r} can't be a DigitalOcean tag: name the stack with letters, digits, - and _ only"
            )
    return tags


def droplet_user_data(
    environment: Environment, settings: DropletSettings, login: Credentials | Enrolment
) -> str:
    """The droplet's cloud-init, with the credentials injected or with what it enrols by: a secret either way.

    Raises SpecError, TemplateError.
    """
    _check_environment(environment)
    paper = environment != "live"
    values = {"use_paper_account": str(paper), "client_address": settings.client_address}
    if is_snapshot(settings.image):
        if isinstance(login, Enrolment):
            raise SpecError(
                f"image {settings.image} is a private snapshot, which can't enrol: "
                "use a stock image, such as ubuntu-24-04-x64"
            )
        check_credentials(login, for_snapshot=True)
        values |= {"ib_username": login.username, "ib_password": login.password}
        return render("ibeam-snapshot.yaml", values, DROPLET_USER_DATA_LIMIT)
    if isinstance(login, Enrolment):
        _check_enrolment(login)
        agent: dict[str, object] = {
            "account_id": login.account_id,
            "service_url": login.service_url,
            "enrolment_token": login.token,
            "push_key": login.push_key,
        }
    else:
        check_credentials(login, for_snapshot=False)
        if len(login.gateway_token) < _SHORTEST_TOKEN:
            raise SpecError(
                f"the gateway token has fewer than {_SHORTEST_TOKEN} characters: make it of 256 random bits"
            )
        agent = {
            "username": login.username,
            "password": login.password,
            "gateway_token_sha256": hashlib.sha256(login.gateway_token.encode()).hexdigest(),
        }
    values |= {"agent_settings": json.dumps({**agent, "paper": paper}), "ibeam_image": settings.ibeam_image}
    return render("ibeam.yaml", values, DROPLET_USER_DATA_LIMIT)


def gateway_token(key: str, droplet: str) -> str:
    """The gateway token of a declared droplet: 64 hex digits, of its name and the stack's token key."""
    return hmac.new(key.strip().encode(), droplet.encode(), hashlib.sha256).hexdigest()


def is_snapshot(image: str) -> bool:
    """Whether an image is a private snapshot (a number) and not a stock image (a slug)."""
    return image.isascii() and image.isdigit()


def check_credentials(credentials: Credentials, for_snapshot: bool) -> None:
    """Raises SpecError for what could not reach IBeam unchanged.

    A stock image's IBeam reads files in text mode and strips line ends from their right (Voyz/ibeam,
    secrets_handler.py), so a carriage return or a last newline would be lost. A snapshot's reads docker's
    --env-file, one line a variable.
    """
    for name, value in (("username", credentials.username), ("password", credentials.password)):
        if not value:
            raise SpecError(f"the IBKR {name} is empty: give one")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise SpecError(f"the IBKR {name} holds half a character (a lone surrogate): retype it") from None
        if for_snapshot and re.search(r"[\x00-\x1f\x7f]", value):
            raise SpecError(
                f"the IBKR {name} holds a newline or another control character, which docker's env file "
                "can't carry: use a stock image, or change it at IBKR"
            )
        if "\x00" in value or "\r" in value or value.endswith("\n"):
            raise SpecError(
                f"the IBKR {name} holds a NUL, a carriage return or a last newline, which IBeam would drop: "
                "remove it (was it pasted with the line's end?)"
            )


def _check_enrolment(enrolment: Enrolment) -> None:
    url = urlsplit(enrolment.service_url)
    local = (url.hostname or "").startswith("127.")
    if url.scheme != "https" and not (url.scheme == "http" and local):
        raise SpecError(f"droplets enrol at {enrolment.service_url!r}: give the service's https:// address")
    if not re.fullmatch(rf"[\w.~-]{{{_SHORTEST_TOKEN},}}", enrolment.token, re.ASCII):
        raise SpecError("the enrolment token is none: make it with secrets.token_urlsafe(32)")
    try:
        size = len(base64.b64decode(enrolment.push_key, validate=True))
    except (binascii.Error, ValueError):
        size = 0
    if size != _KEY_BYTES:
        raise SpecError("the push key isn't one: give the Ed25519 public key's 32 bytes in base64")


def _check_environment(environment: str) -> None:
    if environment not in get_args(Environment):
        raise SpecError(f"environment {environment!r} is unknown: use live, paper or demo")
