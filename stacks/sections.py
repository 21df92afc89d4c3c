"""The configuration's sections as typed models: what may be said under each key, and its default.

Every check here looks at one value. What has to agree with other values is in `relations`, and the values'
types are in `values`. The camelCase of the YAML (`ibkr:network.connectorRange`) is the snake_case of the
program.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Annotated, Literal

from pydantic import Field

from broker.fleet.spec import droplet_name
from stacks.section import Section
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
    Fingerprints,
    GatewayMode,
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
from stacks.watching_sections import Alerts, Budget, Monitoring

API_PORTS = {"live": 4001, "paper": 4002}


class Credentials(Section):
    """An IBKR login. Always encrypted in the stack's file: `pulumi config set --secret --path`."""

    # At IBKR; a second user name keeps a person's phone from taking its session.
    username: Secret
    # At IBKR.
    password: Secret


class Alpaca(Section):
    """Alpaca's key pair, and other addresses than its own for who has a proxy (or the local cloud).

    Which of Alpaca's own endpoints is used follows from the trading mode.
    """

    # Alpaca's key id.
    api_key: Secret | None = None
    # Alpaca's secret.
    secret_key: Secret | None = None
    # Default: Alpaca's own, by the trading mode.
    endpoint: Url | None = None
    # Default: Alpaca's own.
    data_endpoint: Url | None = None
    # Default: Alpaca's own.
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
    # The gateway VM's subnet.
    subnet_range: Cidr = IPv4Network("10.10.0.0/24")
    # What the service comes from: a /28 of the Serverless VPC connector's own.
    connector_range: Cidr = IPv4Network("10.10.1.0/28")
    # The database's, by private service access: /24 or larger.
    private_services_range: Cidr = IPv4Network("10.11.0.0/20")
    connector_name: ConnectorName | None = None  # default: <prefix>-connector
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

    # IBC's number of the version: 1045 for IB Gateway 10.45.
    gateway_version: Annotated[
        Text, matching(r"[0-9]{3,5}", "use IBC's number: 1045 for IB Gateway 10.45")
    ] = "1045"
    # What `sha256sum` says of the installer.
    gateway_sha256: Sha256 | None = None
    # Where the VM gets IB Gateway's installer from.
    gateway_source: Source = (
        "https://download2.interactivebrokers.com/installers/ibgateway/stable-standalone/"
        "ibgateway-stable-standalone-linux-x64.sh"
    )
    # IBC's version.
    ibc_version: Annotated[str, matching(r"[0-9]+\.[0-9]+\.[0-9]+", "use three numbers: 3.24.2")] = "3.24.2"
    # What `sha256sum` says of the zip.
    ibc_sha256: Sha256 | None = None
    # Where the VM gets IBC from.
    ibc_source: Source = "https://github.com/IbcAlpha/IBC/releases/download/3.24.2/IBCLinux-3.24.2.zip"


class OpsAgent(Section):
    """Google's Ops Agent on the VM: logs and the machine's metrics in Google's consoles."""

    # Whether it is installed. The gateway runs without it, too.
    enabled: bool = True
    # Fingerprints of the keys that may sign Google's apt repository, of which one is enough. These signed it
    # for Ubuntu 22.04 and 24.04; https://packages.cloud.google.com/apt/doc/apt-key.gpg has the keys.
    keys: Fingerprints = (
        "A362B822F6DEDC652817EA46B53DC80D13EDEF05",
        "35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3",
    )


class Gateway(Section):
    """The IB Gateway VM."""

    # Whether there is a VM at all; `false` is a part of the rollback to Alpaca.
    enabled: bool = True
    # Which gateways run: the one of ibkr:tradingMode, or paper and live side by side on the one VM, each with
    # a login of its own (ibkr:paperCredentials, ibkr:liveCredentials). The trading mode then says which of
    # them the service's default connection is.
    mode: GatewayMode | None = None
    # The VM's name.
    name: CloudName = "ibkr-gateway"
    # The VM's zone, in gcp:region.
    zone: Zone = "us-west1-b"
    # IB Gateway's Java heap is 768 MB and the process takes up to 813 MB, so 1 GB (the e2-micro of the
    # migration plan) swaps or dies. e2-small with 2 GB is the least that people run well; paper and live
    # side by side want e2-medium.
    machine_type: MachineType = "e2-small"
    # Whether a machine that is likely too small is taken all the same.
    accept_small_machine: bool = False
    # What its boot disk is made of.
    image: str = "ubuntu-os-cloud/ubuntu-2204-lts"
    # In GB.
    boot_disk_gb: Annotated[int, Field(ge=10, le=2000)] = 20
    # In GB; it keeps the gateway's settings and session when the VM is replaced.
    settings_disk_gb: Annotated[int, Field(ge=10, le=100)] = 10
    address: IPv4Address | None = None  # default: any free one of the subnet
    port: int | None = None  # of the default connection; default: the port of the trading mode
    # Whether the VM may read its IBKR credentials; without them it can't log in from its next start.
    may_read_credentials: bool = True
    # `destroy` refuses to delete the settings disk (and with it the session) until this is off.
    protect_settings: bool = False
    # Whether `destroy` is refused until this is off.
    deletion_protection: bool = False
    software: Software = Software()
    ops_agent: OpsAgent = OpsAgent()
    read_only_api: bool = False  # the gateway refuses every order
    second_factor_device: str = ""  # as IBKR's list has it, where there is more than one
    # Daily restart without a new login, and Sundays' with one, in the time zone below.
    auto_restart_time: Annotated[
        str, matching(r"(0?[1-9]|1[0-2]):[0-5][0-9] (AM|PM)", "write it as 11:45 PM")
    ] = "11:45 PM"
    # Sundays', which needs a login.
    cold_restart_time: Annotated[str, matching(r"([01][0-9]|2[0-3]):[0-5][0-9]", "write it as 13:00")] = (
        "13:00"
    )
    # In which the two times above are.
    time_zone: Annotated[
        str, matching(r"[A-Za-z]+(/[A-Za-z0-9_+-]+)*", "use a name such as America/New_York")
    ] = "America/New_York"


class Database(Section):
    """Cloud SQL for PostgreSQL, on a private address."""

    # Declared by the foundation stack, so that it outlives the environment.
    retained: bool = False
    # Cloud SQL's machine.
    tier: SqlTier = "db-f1-micro"
    # PostgreSQL's version.
    version: Annotated[str, matching(r"POSTGRES_1[4-8]", "use POSTGRES_14 to POSTGRES_18")] = "POSTGRES_17"
    # In GB.
    disk_gb: Annotated[int, Field(ge=10, le=10000)] = 10
    # A second machine in another zone.
    high_availability: bool = False
    # Daily ones, and recovery to any moment.
    backups: bool = True
    # Whether connections must be encrypted.
    require_tls: bool = True
    # Whether `destroy` is refused until this is off.
    deletion_protection: bool = True


class Api(Section):
    """The Cloud Run service."""

    # The service's image with its digest, as `make image` says it.
    image: str = ""
    # Whole CPUs only: less than one can't be always allocated, and a broker's socket needs that.
    cpu: Literal["1", "2", "4"] = "1"
    # Of an instance.
    memory: Literal["512Mi", "1Gi", "2Gi", "4Gi"] = "1Gi"
    # Requests that an instance gets at a time. Each open page holds one (components/capacity.py), so more
    # than Cloud Run's default of 80.
    concurrency: Annotated[int, Field(ge=1, le=1000)] = 200
    # Pages that may be open at one time, over all users; order events that a program listens to count too.
    dashboards: Annotated[int, Field(ge=1, le=100_000)] = 100
    # As many at most; with a gateway connection it is one.
    max_instances: Annotated[int, Field(ge=1, le=100)] = 3
    # The service's client id at IB Gateway; no other program may have it.
    client_id: Annotated[int, Field(ge=1, le=999)] = 1
    # How much is logged.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    # Whoever may call the service's URL; the app itself asks everybody for a bearer token.
    public: bool = True
    # Web pages elsewhere whose scripts may call the API with a bearer token: exact origins, nothing else.
    cors_origins: tuple[Origin, ...] = ()
    # Whether `destroy` is refused until this is off.
    deletion_protection: bool = True


class Auth(Section):
    """Who issues the bearer tokens that the service accepts."""

    # The OIDC issuer's URL, as it stands in tokens (`iss`).
    issuer: Url | None = None
    # Whom tokens must be for (`aud`).
    audience: str = "ibkr-api"
    # Where the issuer publishes its keys.
    jwks_url: Url | None = None


class IBeamUser(Section):
    """One person's IBeam droplet. The name becomes a part of the droplet's (broker.fleet.spec)."""

    # A part of the droplet's name.
    name: UserName = ""
    # What kind of login it is; demo is a paper one on the smaller size.
    environment: DropletEnvironment = "paper"
    # Tells a user's droplets of one environment apart.
    index: Annotated[int, Field(ge=1, le=99)] = 1
    # At IBKR.
    username: Secret | None = None
    # At IBKR.
    password: Secret | None = None

    @property
    def droplet_name(self) -> str:
        return droplet_name(self.name, self.environment, self.index) if self.name else ""


class IBeam(Section):
    """The IBeam droplets that the stack declares, and what run-time ones are, unless `Fleet` says else."""

    # DigitalOcean's region.
    region: DropletRegion = "nyc1"
    # A droplet's size, for live and paper.
    size: DropletSize = "s-1vcpu-1gb"
    # A droplet's size, for demo.
    demo_size: DemoSize = "s-1vcpu-512mb-10gb"
    # What droplets are made of: a stock image's slug, or a private snapshot's number.
    image: Text = "ubuntu-24-04-x64"
    # With its digest: name:tag@sha256:<digest>.
    container: str = "voyz/ibeam:0.5.12"
    # IBKR wants vendors to use OAuth. Holding people's passwords is for one's own accounts and for users
    # who knowingly agree, so it has to be switched on.
    hold_credentials: bool = False
    # Whose droplets the stack declares.
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

    # Whether users may connect accounts.
    enabled: bool = False
    # Default: ibkr:ibeam.region.
    region: DropletRegion | None = None
    # Default: ibkr:ibeam.size.
    size: DropletSize | None = None
    # Default: ibkr:ibeam.demoSize.
    demo_size: DemoSize | None = None
    # Default: ibkr:ibeam.image; a stock image, since snapshots can't enrol.
    image: Text | None = None
    # As many accounts as a user may have.
    accounts_per_user: Annotated[int, Field(ge=1, le=1000)] = 3
    # New accounts of a user in an hour, and logins that one account may be made to begin.
    connects_per_hour: Annotated[int, Field(ge=1, le=10000)] = 10
    # How often Cloud Scheduler has a pass run, in minutes; the service runs its own besides.
    reconcile_minutes: Annotated[int, Field(ge=1, le=30)] = 5
    # Where droplets enrol: what stands before the service, or its own address in the local cloud.
    service_url: Url | None = None
    digitalocean_api: Url | None = None  # other than DigitalOcean's own


class Ci(Section):
    """The repository whose workflows may preview and deploy. Without it, no CI identity is declared."""

    # On GitHub: owner/name.
    repository: Annotated[str, matching(r"[\w.-]+/[\w.-]+", "write it as owner/name")] | None = None
    # The branch whose workflows deploy.
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
    # The identity pool's name; Google keeps a deleted one's for 30 days.
    pool: Annotated[
        str, matching(r"[a-z0-9-]{4,32}", "use 4 to 32 lower-case letters, digits and hyphens")
    ] = "github"
    # The bucket with Pulumi's state, which workflows read and write.
    state_bucket: str | None = None


class Config(Section):
    """All keys of the project's own namespace."""

    # What this stack declares: what outlives an environment, an environment, or both.
    kind: Literal["foundation", "environment", "both"] = "environment"
    # What the resources' names begin with.
    name_prefix: Annotated[
        str,
        matching(
            r"[a-z][a-z0-9-]{1,10}[a-z0-9]",
            "use 3 to 12 lower-case letters, digits and hyphens, a letter first",
        ),
    ] = "ibkr"
    # The stack that declares what this environment stands on: organization/project/stack.
    foundation_stack: str | None = None
    # The key ring of the key that encrypts the environments' Pulumi state. Google never deletes a key ring:
    # after a `destroy` of the foundation, choose another name.
    state_key_ring: CloudName | None = None
    # What the service trades through.
    broker_type: BrokerType = "alpaca"
    # Paper or live; port, mode and account must agree, or nothing trades.
    trading_mode: TradingMode = "paper"
    # Where quotes come from.
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
    # The IBKR login of the gateway VM: username, password.
    gateway_credentials: Credentials | None = None
    # The paper gateway's, in its place, where ibkr:gateway.mode is both.
    paper_credentials: Credentials | None = None
    # The live gateway's, in its place, where ibkr:gateway.mode is both.
    live_credentials: Credentials | None = None
    alpaca: Alpaca = Alpaca()
    limits: Limits = Limits()
    alerts: Alerts = Alerts()
    monitoring: Monitoring = Monitoring()
    budget: Budget = Budget()
    # Where the service itself sends alerts: apprise's URLs (see apprise's documentation), which hold tokens.
    alert_urls: AlertUrls | None = None
    # What the service makes droplets with; for ibkr:fleet.
    digitalocean_token: Secret | None = None
    # The password of the service's database user.
    database_password: Secret | None = None
