"""What the service reads of its environment for the fleet: users' own gateways on droplets.

It is off unless FLEET_ENABLED says otherwise: the service then keeps IBKR passwords of users, encrypted, and
that is somebody's decision. The DIGITAL_OCEAN_* names and defaults are the integration document's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import AddressValueError, IPv4Address
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError

from broker.errors import ConfigurationError
from broker.fleet.spec import DropletSettings, is_snapshot

_PINNED = re.compile(r"[\w./:-]+@sha256:[0-9a-f]{64}", re.ASCII)
_STACK = re.compile(r"[A-Za-z0-9_-]{1,200}")
DIGITALOCEAN = "https://api.digitalocean.com"
GOOGLE = "https://accounts.google.com"
GOOGLE_KEYS = "https://www.googleapis.com/oauth2/v3/certs"


def _stack(value: str) -> str:
    if not _STACK.fullmatch(value):
        raise ValueError("write it with letters, digits, - and _: it becomes a tag of droplets")
    return value


def _image(value: str) -> str:
    if is_snapshot(value):
        raise ValueError(
            f"{value} is a private snapshot, whose droplets can't enrol: "
            "use a stock image for droplets made at run time, such as ubuntu-24-04-x64"
        )
    return value


def _container(value: str) -> str:
    if not _PINNED.fullmatch(value):
        raise ValueError(
            "pin the image by its digest, as in voyz/ibeam:0.5.12@sha256:...; "
            "`docker buildx imagetools inspect voyz/ibeam:0.5.12` shows it"
        )
    return value


def _address(value: str) -> str:
    try:
        return str(IPv4Address(value))
    except AddressValueError:
        raise ValueError("must be the one IPv4 address that the service connects from (its NAT's)") from None


def _url(value: str) -> str:
    """https, or http on this machine: credentials and tokens travel there."""
    parts = urlsplit(value)
    local = (parts.hostname or "").startswith("127.")
    if not parts.netloc or (parts.scheme != "https" and not (parts.scheme == "http" and local)):
        raise ValueError("must be an https:// address")
    return value


_Url = Annotated[str, AfterValidator(_url)]


class FleetEnvironment(BaseModel):
    """The variables, in lower case."""

    model_config = ConfigDict(hide_input_in_errors=True, extra="ignore")

    #: the stack's name: droplets carry it as a tag, and two stacks in one team are told apart by it
    stack: Annotated[str, AfterValidator(_stack)]
    #: DigitalOcean's token, which droplets are made with
    digital_ocean_api_key: SecretStr
    #: where droplets are made
    digital_ocean_region: str = "nyc1"
    #: a droplet's size, for live and paper accounts
    digital_ocean_size: str = "s-1vcpu-1gb"
    #: a droplet's size, for demo accounts
    digital_ocean_demo_size: str = "s-1vcpu-512mb-10gb"
    #: what droplets are made of; run-time ones need a stock image's slug
    digital_ocean_image_id: Annotated[str, AfterValidator(_image), Field(validate_default=True)] = "182556282"
    #: another address than DigitalOcean's own
    digital_ocean_api_url: _Url = DIGITALOCEAN
    #: where droplets enrol: this service, as they reach it
    fleet_service_url: _Url
    #: the only address that may reach a gateway: the service's, as droplets see it
    fleet_client_address: Annotated[str, AfterValidator(_address)]
    #: IBeam's image, pinned by its digest
    fleet_ibeam_image: Annotated[str, AfterValidator(_container)]
    #: the file with the key that logins are encrypted under; or FLEET_KMS_KEY
    fleet_key_file: str = ""
    #: the Cloud KMS key that logins are encrypted under; or FLEET_KEY_FILE
    fleet_kms_key: str = ""
    #: as many accounts as a user may have
    fleet_accounts_per_user: int = Field(default=3, ge=1, le=1000)
    #: new accounts of a user in an hour, and logins that one account may be made to begin
    fleet_connects_per_hour: int = Field(default=10, ge=1, le=10_000)
    #: whom the scheduler's tokens must be for
    scheduler_audience: str = ""
    #: the service account that may have passes run
    scheduler_email: str = ""
    #: who issues the scheduler's tokens
    scheduler_issuer: _Url = GOOGLE
    #: where that one publishes its keys
    scheduler_jwks_url: _Url = GOOGLE_KEYS

    @property
    def wrapping_key(self) -> dict[str, str]:
        """What `broker.fleet.__main__.open_wrapper` reads."""
        return {"FLEET_KEY_FILE": self.fleet_key_file, "FLEET_KMS_KEY": self.fleet_kms_key}

    @property
    def droplets(self) -> DropletSettings:
        """What new droplets are."""
        return DropletSettings(
            client_address=self.fleet_client_address,
            region=self.digital_ocean_region,
            size=self.digital_ocean_size,
            demo_size=self.digital_ocean_demo_size,
            image=self.digital_ocean_image_id,
            ibeam_image=self.fleet_ibeam_image,
        )


def read_fleet_settings(environment: Mapping[str, str]) -> FleetEnvironment | None:
    """None where the fleet is off. Raises `ConfigurationError` with every problem, and no secret."""
    switch = environment.get("FLEET_ENABLED", "").strip().lower()
    if switch in ("", "false", "0", "no", "off"):
        return None
    if switch not in ("true", "1", "yes", "on"):
        raise ConfigurationError("FLEET_ENABLED: write true or false")
    names = FleetEnvironment.model_fields
    given = {n: environment[n.upper()] for n in names if environment.get(n.upper())}
    problems = _contradictions(given)
    try:
        found = FleetEnvironment.model_validate(given)
    except ValidationError as wrong:
        problems = [_said(error) for error in wrong.errors()] + problems
    if problems:
        raise ConfigurationError("; ".join(problems))
    return found


def _contradictions(given: Mapping[str, str]) -> list[str]:
    """What is wrong with several variables together. Said beside what is wrong with each."""
    problems = []
    if ("fleet_key_file" in given) == ("fleet_kms_key" in given):
        problems.append(
            "FLEET_KEY_FILE, FLEET_KMS_KEY: set one of them, a key file's path or a key of Cloud KMS"
        )
    if ("scheduler_audience" in given) != ("scheduler_email" in given):
        problems.append("SCHEDULER_AUDIENCE, SCHEDULER_EMAIL: set both, or none if nothing is scheduled")
    return problems


def _said(error: Any) -> str:
    name = ".".join(str(part) for part in error["loc"]).upper()
    message = error["msg"].removeprefix("Value error, ")
    if message == "Field required":
        message = "is required where FLEET_ENABLED is true"
    return f"{name}: {message}"
