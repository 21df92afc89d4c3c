"""The service's environment as one model. All that is wrong is said at once, and never a secret's value."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from broker.errors import ConfigurationError
from broker.factory import BrokerSettings, settings_from_environment
from broker.market.quotes import market_settings
from broker.service.fleet_settings import FleetEnvironment, read_fleet_settings
from broker.service.origins import check_origin, split_origins


def _database_url(value: SecretStr) -> SecretStr:
    try:
        parts = urlsplit(value.get_secret_value())
        complete = parts.scheme == "postgresql+psycopg" and parts.path not in ("", "/")
    except ValueError:
        complete = False
    if not complete:
        raise ValueError("must look like postgresql+psycopg://user:password@host:5432/database")
    return value


def check_database_url(value: SecretStr) -> str:
    """The URL in clear. Raises `ConfigurationError`."""
    try:
        return _database_url(value).get_secret_value()
    except ValueError as wrong:
        raise ConfigurationError(f"DATABASE_URL: {wrong}") from None


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc:
        raise ValueError("must be an http or https URL")
    return value


HttpUrl = Annotated[str, AfterValidator(_http_url)]
Origins = Annotated[
    tuple[Annotated[str, AfterValidator(check_origin)], ...], NoDecode, BeforeValidator(split_origins)
]


class ServiceSettings(BaseSettings):
    """What the service reads beside the broker's own settings."""

    model_config = SettingsConfigDict(env_ignore_empty=True, hide_input_in_errors=True, extra="ignore")

    #: where the database is: postgresql+psycopg://user:password@host:5432/database
    database_url: Annotated[SecretStr, AfterValidator(_database_url)]
    #: who issues the tokens, as it stands in them (`iss`)
    oidc_issuer: HttpUrl
    #: whom tokens must be for (`aud`)
    oidc_audience: str
    #: asked from the issuer's discovery document unless set
    oidc_jwks_url: HttpUrl | None = None
    #: the stack's name, for alerts and droplets' tags
    stack: str = "unnamed"
    host: str = "0.0.0.0"  # in a container of its own; who reaches it is the platform's business
    #: where it listens
    port: int = Field(default=8080, ge=1, le=65535)
    #: listen on this path in place of host and port
    unix_socket: str | None = None
    #: how much is logged
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    #: largest request body, in bytes
    body_limit: int = Field(default=65536, ge=1024)
    #: how long an old revision may hold the trading connection after it stopped answering, in seconds
    lease_seconds: float = Field(default=15.0, ge=3, le=300)
    #: how many requests of this instance may stay open (pages that are looked at, order events); fewer than
    #: the platform gives it at a time, so that calls and orders always get through
    stream_limit: int = Field(default=150, ge=1, le=1000)
    #: as many of them one user may have open
    streams_per_user: int = Field(default=20, ge=1, le=1000)
    #: after how long such a request ends and is made anew, in seconds; before the platform cuts it off
    stream_seconds: float = Field(default=3540.0, ge=1, le=86400)
    #: web pages elsewhere whose scripts may call the API with a bearer token: exact origins, with commas
    #: between, such as https://app.example.com; none unless set
    cors_origins: Origins = ()


class Settings:
    """The service's, the broker's, the fleet's, and where quotes come from."""

    def __init__(
        self,
        service: ServiceSettings,
        broker: BrokerSettings,
        market: Mapping[str, str] | None = None,
        fleet: FleetEnvironment | None = None,
    ) -> None:
        """`market`: the variables that `broker.market.quotes.market_settings` found. No `fleet`: it's off."""
        self.service = service
        self.broker = broker
        self.market = market or {}
        self.fleet = fleet

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no text that leaves the process."""
        url = self.service.database_url.get_secret_value()
        cloud = self.fleet.digital_ocean_api_key.get_secret_value() if self.fleet else ""
        return (*self.broker.secrets, url, urlsplit(url).password or "", cloud)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """Read all settings. Raises `ConfigurationError` with every problem and the variable's name."""
        environment = os.environ if environment is None else environment
        problems: list[str] = []
        service = broker = market = fleet = None
        try:
            service = read_service_settings(environment)
        except ConfigurationError as wrong:
            problems.append(wrong.message)
        try:
            broker = settings_from_environment(environment)
        except ConfigurationError as wrong:
            problems.append(wrong.message)
        try:
            market = market_settings(environment)
        except ConfigurationError as wrong:
            problems.append(wrong.message)
        try:
            fleet = read_fleet_settings(environment)
        except ConfigurationError as wrong:
            problems.append(wrong.message)
        if service is None or broker is None or market is None or problems:
            raise ConfigurationError("; ".join(problems))
        return cls(service, broker, market, fleet)


def read_service_settings(environment: Mapping[str, str]) -> ServiceSettings:
    """The service's half. Raises `ConfigurationError` with every problem."""
    names = ServiceSettings.model_fields
    given = {n: environment[n.upper()] for n in names if environment.get(n.upper())}
    try:
        return ServiceSettings.model_validate(given)
    except ValidationError as wrong:
        # `input` is left out on purpose: a mistyped DATABASE_URL holds a password.
        said = [f"{_variable(e['loc'])}: {_plain(e['msg'])}" for e in wrong.errors()]
        raise ConfigurationError("; ".join(said)) from None


def _variable(location: tuple[int | str, ...]) -> str:
    """The variable's name; of a list, which of its values is meant, from 1 on."""
    name, *inner = location
    return str(name).upper() + "".join(f" ({part + 1})" for part in inner if isinstance(part, int))


def _plain(message: str) -> str:
    return "is required" if message == "Field required" else message.removeprefix("Value error, ")
