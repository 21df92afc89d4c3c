"""The configuration's sections as typed models: what may be said under each key, and its default.

Every check here looks at one value. What has to agree with other values is in `relations`, and the values'
types are in `values`. The camelCase of the YAML (`ibkr:network.connectorRange`) is the snake_case of the
program.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from broker.fleet.spec import droplet_name
from stacks.values import (
    AlertUrls,
    BrokerType,
    Cidr,
    CloudName,
    ConnectorName,
    DemoSize,
    DropletEnvironment,
    DropletRegion,
    DropletSize,
    Limit,
    MachineType,
    MarketDataSource,
    Origin,
    Seconds,
    Secret,
    Sha256,
    Source,
    SqlTier,
    StreamUrl,
    Text,
    Tickers,
    TradingMode,
    Url,
    UserName,
    WholeLimit,
    Zone,
    matching,
)

API_PORTS = {"live": 4001, "paper": 4002}


class Section(BaseModel):
    """A part of the configuration. A key that isn't declared is an error, since it is likely a typo."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, alias_generator=to_camel, hide_input_in_errors=True, defer_build=True
    )


class Credentials(Section):
    """An IBKR login. Always encrypted in the stack's file: `pulumi config set --secret --path`."""

    username: Secret
    password: Secret


class Alpaca(Section):
    """Alpaca's key pair, and other addresses than its own for who has a proxy (or the local cloud).

    Which of Alpaca's own endpoints is used follows from the trading mode.
    """

    api_key: Secret | None = None
    secret_key: Secret | None = None
    endpoint: Url | None = None
    data_endpoint: Url | None = None
    stream_endpoint: StreamUrl | None = None


class Limits(Section):
    """What an order may be: see `broker.risk.limits`, whose names, units and defaults these are.

    What isn't set here has the default of the trading mode; `none` switches a limit off.
    """

    max_order_value: Limit | None = None
    max_order_qty: Limit | None = None
    max_long_qty: Limit | None = None
    max_short_qty: Limit | None = None
    max_long_value: Limit | None = None
    max_short_value: Limit | None = None
    price_collar_percent: Limit | None = None
    far_collar_percent: Limit | None = None
    max_quote_age_seconds: Seconds | None = None
    delayed_quotes: bool | None = None
    orders_per_minute: WholeLimit | None = None
    max_day_loss: Limit | None = None
    max_day_loss_percent: Limit | None = None
    symbols_allowed: Tickers | None = None
    symbols_forbidden: Tickers | None = None


class Network(Section):
    """Addresses. The three ranges must not overlap each other, nor what the VPC is peered with."""

    name: CloudName | None = None  # default: the name prefix
    subnet_range: Cidr = IPv4Network("10.10.0.0/24")
    connector_range: Cidr = IPv4Network("10.10.1.0/28")
    private_services_range: Cidr = IPv4Network("10.11.0.0/20")
    connector_name: ConnectorName | None = None  # <prefix>-connector
    # The connector can reach the gateway's API ports. Switched off, the service is cut from the gateway.
    allow_connector: bool = True
    # Everything else from the connector is denied. Without it, Google's hidden rule at priority 1000 lets
    # the connector reach all of the VPC, so it may be switched off only in the local cloud.
    deny_connector: bool = True


class Software(Section):
    """What the VM installs at its first boot; nothing runs whose sha256 differs.

    IBKR moves the installer's address on and publishes no checksum: keep the file that you measured in a
    private bucket of your own (`gs://`). It must not be redistributed.
    """

    gateway_version: Annotated[
        Text, matching(r"[0-9]{3,5}", "use IBC's number: 1045 for IB Gateway 10.45")
    ] = "1045"
    gateway_sha256: Sha256 | None = None
    gateway_source: Source = (
        "https://download2.interactivebrokers.com/installers/ibgateway/stable-standalone/"
        "ibgateway-stable-standalone-linux-x64.sh"
    )
    ibc_version: Annotated[str, matching(r"[0-9]+\.[0-9]+\.[0-9]+", "use three numbers: 3.24.2")] = "3.24.2"
    ibc_sha256: Sha256 | None = None
    ibc_source: Source = "https://github.com/IbcAlpha/IBC/releases/download/3.24.2/IBCLinux-3.24.2.zip"


class Gateway(Section):
    """The IB Gateway VM."""

    enabled: bool = True
    name: CloudName = "ibkr-gateway"
    zone: Zone = "us-west1-b"
    # IB Gateway's Java heap is 768 MB and the process takes up to 813 MB, so 1 GB (the e2-micro of the
    # migration plan) swaps or dies. e2-small with 2 GB is the least that people run well; paper and live
    # side by side want e2-medium.
    machine_type: MachineType = "e2-small"
    accept_small_machine: bool = False
    image: str = "ubuntu-os-cloud/ubuntu-2204-lts"
    boot_disk_gb: Annotated[int, Field(ge=10, le=2000)] = 20
    settings_disk_gb: Annotated[int, Field(ge=10, le=100)] = 10
    address: IPv4Address | None = None  # default: any free one of the subnet
    port: int | None = None  # default: the port of the trading mode
    # Takes the VM's right to read its IBKR credentials away; from its next start it can't log in.
    may_read_credentials: bool = True
    # `destroy` refuses to delete the settings disk (and with it the session) until this is off.
    protect_settings: bool = False
    deletion_protection: bool = False
    software: Software = Software()
    read_only_api: bool = False  # the gateway refuses every order
    second_factor_device: str = ""  # as IBKR's list has it, where there is more than one
    # Daily restart without a new login, and Sundays' with one, in the time zone below.
    auto_restart_time: Annotated[
        str, matching(r"(0?[1-9]|1[0-2]):[0-5][0-9] (AM|PM)", "write it as 11:45 PM")
    ] = "11:45 PM"
    cold_restart_time: Annotated[str, matching(r"([01][0-9]|2[0-3]):[0-5][0-9]", "write it as 13:00")] = (
        "13:00"
    )
    time_zone: Annotated[
        str, matching(r"[A-Za-z]+(/[A-Za-z0-9_+-]+)*", "use a name such as America/New_York")
    ] = "America/New_York"


class Database(Section):
    """Cloud SQL for PostgreSQL, on a private address."""

    # Declared by the foundation stack, so that it outlives the environment.
    retained: bool = False
    tier: SqlTier = "db-f1-micro"
    version: Annotated[str, matching(r"POSTGRES_1[4-8]", "use POSTGRES_14 to POSTGRES_18")] = "POSTGRES_17"
    disk_gb: Annotated[int, Field(ge=10, le=10000)] = 10
    high_availability: bool = False
    backups: bool = True
    require_tls: bool = True
    deletion_protection: bool = True


class Api(Section):
    """The Cloud Run service."""

    image: str = ""
    # Whole CPUs only: less than one can't be always allocated, and a broker's socket needs that.
    cpu: Literal["1", "2", "4"] = "1"
    memory: Literal["512Mi", "1Gi", "2Gi", "4Gi"] = "1Gi"
    # Streams (dashboards, order events) each hold a request open, so more than the default of 80.
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 200
    max_instances: Annotated[int, Field(ge=1, le=100)] = 3
    client_id: Annotated[int, Field(ge=1, le=999)] = 1
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # Whoever may call the service's URL; the app itself asks everybody for a bearer token.
    public: bool = True
    # Web pages elsewhere whose scripts may call the API with a bearer token: exact origins, nothing else.
    cors_origins: tuple[Origin, ...] = ()
    deletion_protection: bool = True


class Auth(Section):
    """Who issues the bearer tokens that the service accepts."""

    issuer: Url | None = None
    audience: str = "ibkr-api"
    jwks_url: Url | None = None


class IBeamUser(Section):
    """One person's IBeam droplet. The name becomes a part of the droplet's (broker.fleet.spec)."""

    name: UserName = ""
    environment: DropletEnvironment = "paper"
    index: Annotated[int, Field(ge=1, le=99)] = 1
    username: Secret | None = None
    password: Secret | None = None

    @property
    def droplet_name(self) -> str:
        return droplet_name(self.name, self.environment, self.index) if self.name else ""


class IBeam(Section):
    """The IBeam droplets that the stack declares, and what run-time ones are, unless `Fleet` says else."""

    region: DropletRegion = "nyc1"
    size: DropletSize = "s-1vcpu-1gb"
    demo_size: DemoSize = "s-1vcpu-512mb-10gb"
    image: Text = "ubuntu-24-04-x64"
    # With its digest: name:tag@sha256:<digest>.
    container: str = "voyz/ibeam:0.5.12"
    # IBKR wants vendors to use OAuth. Holding people's passwords is for one's own accounts and for users
    # who knowingly agree, so it has to be switched on.
    hold_credentials: bool = False
    users: tuple[IBeamUser, ...] = ()
    # What `brokerType: ibeam` trades through, by the droplet's name; with one user, that one's.
    default_droplet: str | None = None

    @property
    def default_user(self) -> IBeamUser | None:
        """Whose droplet the default connection is."""
        if self.default_droplet is None:
            return self.users[0] if len(self.users) == 1 else None
        return next((user for user in self.users if user.droplet_name == self.default_droplet), None)


class Fleet(Section):
    """Droplets that the service makes at run time, for users who connect their IBKR accounts.

    Off by default: the service then holds its users' passwords (see `IBeam.hold_credentials`). Region, sizes
    and image that aren't set here are those of `IBeam`. A foundation with `enabled` declares the key that
    the logins are encrypted under.
    """

    enabled: bool = False
    region: DropletRegion | None = None
    size: DropletSize | None = None
    demo_size: DemoSize | None = None
    image: Text | None = None
    accounts_per_user: Annotated[int, Field(ge=1, le=1000)] = 3
    connects_per_hour: Annotated[int, Field(ge=1, le=10000)] = 10
    # How often Cloud Scheduler has a pass run, in minutes; the service runs its own besides.
    reconcile_minutes: Annotated[int, Field(ge=1, le=30)] = 5
    # Where droplets enrol: what stands before the service, or its own address in the local cloud.
    service_url: Url | None = None
    digitalocean_api: Url | None = None  # other than DigitalOcean's own


class Ci(Section):
    """The repository whose workflows may preview and deploy. Without it, no CI identity is declared."""

    repository: Annotated[str, matching(r"[\w.-]+/[\w.-]+", "write it as owner/name")] | None = None
    deploy_branch: Annotated[
        str, matching(r"[\w./-]+", "use a branch's name: letters, digits and . _ / -")
    ] = "main"
    # The GitHub environment whose approval a run needs, production's. Without it, none is asked.
    environment: (
        Annotated[
            str, matching(r"[A-Za-z0-9_-]{1,64}", "use an environment's name: letters, digits, _ and -")
        ]
        | None
    ) = None
    pool: Annotated[
        str, matching(r"[a-z0-9-]{4,32}", "use 4 to 32 lower-case letters, digits and hyphens")
    ] = "github"
    state_bucket: str | None = None


class Alerts(Section):
    """Google's alert policies over the service's log lines (components/alert_rules.py), and whom they mail.

    They also notice a service that is gone and can't tell by `Config.alert_urls`.
    """

    emails: tuple[
        Annotated[str, matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "use a mail address: ann@company.com")], ...
    ] = ()


class Config(Section):
    """All keys of the project's own namespace."""

    kind: Literal["foundation", "environment", "both"] = "environment"
    name_prefix: Annotated[
        str,
        matching(
            r"[a-z][a-z0-9-]{1,10}[a-z0-9]",
            "use 3 to 12 lower-case letters, digits and hyphens, a letter first",
        ),
    ] = "ibkr"
    foundation_stack: str | None = None
    # The key ring of the key that encrypts the environments' Pulumi state. Google never deletes a key ring:
    # after a `destroy` of the foundation, choose another name.
    state_key_ring: CloudName | None = None
    broker_type: BrokerType = "alpaca"
    trading_mode: TradingMode = "paper"
    market_data_source: MarketDataSource = "yfinance"
    network: Network = Network()
    gateway: Gateway = Gateway()
    database: Database = Database()
    api: Api = Api()
    auth: Auth = Auth()
    ibeam: IBeam = IBeam()
    fleet: Fleet = Fleet()
    ci: Ci = Ci()
    # Those who may reach the VM through IAP, as IAM members: "user:ann@example.com".
    operators: tuple[
        Annotated[str, matching(r"(user|group|serviceAccount):.+@.+", "write it as user:ann@company.com")],
        ...,
    ] = ()
    # Who else pulls from the foundation's registry: the Cloud Run agents of other projects (docs/github.md).
    registry_readers: tuple[
        Annotated[
            str, matching(r"(user|group|serviceAccount):.+@.+", "write it as serviceAccount:name@host")
        ],
        ...,
    ] = ()
    gateway_credentials: Credentials | None = None
    alpaca: Alpaca = Alpaca()
    limits: Limits = Limits()
    alerts: Alerts = Alerts()
    # Where the service itself sends alerts: apprise's URLs (see apprise's documentation), which hold tokens.
    alert_urls: AlertUrls | None = None
    digitalocean_token: Secret | None = None
    database_password: Secret | None = None
