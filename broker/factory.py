"""From settings to a broker. `get_broker()` is the migration plan's; the service builds its own settings."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from broker.alerts import Alerts, AlertWatch, alert_urls
from broker.base import BaseBroker
from broker.errors import ConfigurationError, NotConnected
from broker.journal import Journal
from broker.placement import Guard
from broker.risk.limits import LIVE, PAPER, Limits, limits_from_environment
from broker.risk.live import VERIFICATION_DAYS, verification_days
from broker.risk.modes import Mode
from broker.risk.wiring import declared, guard_for

log = logging.getLogger(__name__)

LIVE_PORT, PAPER_PORT = 4001, 4002


@dataclass(frozen=True)
class BrokerSettings:
    """What the brokers need, whatever it was read from. Secrets stay out of its repr."""

    #: what trades: alpaca, ibkr (IB Gateway), ibeam (Client Portal) or simulated
    broker_type: str = "alpaca"
    #: where IB Gateway is
    gateway_host: str = "127.0.0.1"
    #: 4001 is live, 4002 paper; with a trading mode, that one's
    gateway_port: int = LIVE_PORT
    #: port of the gateway of the other trading mode beside it on that host; 0: there is none
    second_gateway_port: int = 0
    #: this program's client id there; no other program may have it
    client_id: int = 1
    #: which account to trade; needed only where the login manages several
    account: str = ""
    #: paper, live, or empty: no check of the account's prefix
    trading_mode: str = ""
    #: Alpaca's key id
    alpaca_api_key: str = field(default="", repr=False)
    #: Alpaca's secret
    alpaca_secret_key: str = field(default="", repr=False)
    #: whether it is Alpaca's paper account
    alpaca_paper: bool = True
    #: another address than Alpaca's own, for trading
    alpaca_endpoint: str = ""
    #: the same for prices
    alpaca_data_endpoint: str = ""
    #: the same for the stream of order updates
    alpaca_stream_endpoint: str = ""
    #: a Client Portal gateway's address, https
    ibeam_url: str = ""
    #: what proves it: a PEM file with its certificate or its CA; else the first one seen is pinned
    ibeam_ca_file: str = ""
    #: the same as one certificate's PEM or SHA-256
    ibeam_certificate: str = ""
    #: what proves us to a proxy before it
    ibeam_token: str = field(default="", repr=False)
    #: ids of IBKR's questions that are confirmed; the documented ones unless set
    ibeam_confirm: frozenset[str] | None = None
    #: take the session from another login of the same user
    ibeam_take_over: bool = False
    #: other processes use this gateway, too, with the same journal
    ibeam_shared: bool = False
    #: what every order has to keep to
    limits: Limits = LIVE
    #: the same for users' own gateways, by their mode
    user_limits: Mapping[Mode, Limits] = field(default_factory=lambda: {"live": LIVE, "paper": PAPER})
    #: how long a verification unlocks live trading, in days
    verification_days: int = VERIFICATION_DAYS
    #: where alerts go (apprise's URLs, which hold tokens)
    alert_urls: tuple[str, ...] = field(default=(), repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What may stand in no text that leaves the process."""
        return (self.alpaca_api_key, self.alpaca_secret_key, self.ibeam_token, *self.alert_urls)


def settings_from_environment(environment: Mapping[str, str]) -> BrokerSettings:
    """Read the plan's variables. Raises `ConfigurationError` naming all that is wrong, and no secret."""
    problems: list[str] = []

    def number(name: str, default: int, smallest: int, largest: int) -> int:
        text = environment.get(name) or str(default)
        if text.isascii() and text.isdigit() and smallest <= int(text) <= largest:
            return int(text)
        problems.append(f"{name} must be a whole number from {smallest} to {largest}, not {text[:40]!a}")
        return default

    broker_type = (environment.get("BROKER_TYPE") or "alpaca").strip().lower()
    if broker_type not in BUILDERS:
        problems.append(f"BROKER_TYPE must be one of {', '.join(sorted(BUILDERS))}, not {broker_type[:40]!a}")
    mode = (environment.get("IBKR_TRADING_MODE") or "").strip().lower()
    if mode not in ("", "paper", "live"):
        problems.append(f"IBKR_TRADING_MODE must be paper or live, not {mode[:40]!a}")
    port = number("IBKR_GATEWAY_PORT", PAPER_PORT if mode == "paper" else LIVE_PORT, 1, 65535)
    # The ports are how a gateway says which account it trades: a live port in paper mode is somebody's slip.
    if (mode, port) in (("paper", LIVE_PORT), ("live", PAPER_PORT)):
        problems.append(
            f"IBKR_GATEWAY_PORT {port} contradicts IBKR_TRADING_MODE {mode}: "
            f"{LIVE_PORT} is live, {PAPER_PORT} paper"
        )
    second = number("IBKR_SECOND_GATEWAY_PORT", 0, 0, 65535)
    if second and (broker_type != "ibkr" or not mode):
        problems.append("IBKR_SECOND_GATEWAY_PORT needs BROKER_TYPE ibkr and an IBKR_TRADING_MODE")
    elif second and second in (port, PAPER_PORT if mode == "paper" else LIVE_PORT):
        problems.append(
            f"IBKR_SECOND_GATEWAY_PORT {second} is the {mode} gateway's, which the default connection has: "
            "it is for the other one"
        )
    paper = (environment.get("ALPACA_PAPER") or "true").strip().lower()
    if paper not in ("true", "false"):
        problems.append(f"ALPACA_PAPER must be true or false, not {paper[:40]!a}")
    take_over = (environment.get("IBEAM_TAKE_OVER") or "false").strip().lower()
    if take_over not in ("true", "false"):
        problems.append(f"IBEAM_TAKE_OVER must be true or false, not {take_over[:40]!a}")
    confirm = environment.get("IBEAM_CONFIRM")
    client_id = number("IBKR_CLIENT_ID", 1, 0, 2**31 - 1)
    settings = BrokerSettings(
        broker_type=broker_type,
        gateway_host=environment.get("IBKR_GATEWAY_HOST") or "127.0.0.1",
        gateway_port=port,
        second_gateway_port=second,
        client_id=client_id,
        account=_account(environment, broker_type),
        trading_mode=mode,
        alpaca_api_key=environment.get("ALPACA_API_KEY") or "",
        alpaca_secret_key=environment.get("ALPACA_SECRET_KEY") or "",
        alpaca_paper=paper != "false",
        alpaca_endpoint=environment.get("ALPACA_ENDPOINT") or "",
        alpaca_data_endpoint=environment.get("ALPACA_DATA_ENDPOINT") or "",
        alpaca_stream_endpoint=environment.get("ALPACA_STREAM_ENDPOINT") or "",
        ibeam_url=(environment.get("IBEAM_URL") or "").strip(),
        ibeam_ca_file=environment.get("IBEAM_CA_FILE") or "",
        ibeam_token=environment.get("IBEAM_TOKEN") or "",
        ibeam_confirm=None if confirm is None else frozenset(confirm.replace(",", " ").split()),
        ibeam_take_over=take_over == "true",
        alert_urls=alert_urls(environment.get("ALERT_URLS") or ""),
    )
    by_mode: dict[Mode, Limits] = {"live": LIVE, "paper": PAPER}
    days = VERIFICATION_DAYS
    try:
        by_mode = {mode: limits_from_environment(environment, mode) for mode in by_mode}
    except ConfigurationError as wrong:
        problems.append(wrong.message)
    try:
        days = verification_days(environment)
    except ConfigurationError as wrong:
        problems.append(wrong.message)
    if problems:
        raise ConfigurationError("; ".join(problems))
    limits = by_mode[declared(settings).settings_mode]
    return replace(settings, limits=limits, user_limits=by_mode, verification_days=days)


def second_gateway(settings: BrokerSettings) -> BrokerSettings | None:
    """The settings of the gateway of the other trading mode, or None where there is none.

    It keeps to that mode's limits. The account to trade, if one is set, is the default connection's.
    """
    if not settings.second_gateway_port:
        return None
    mode: Mode = "live" if settings.trading_mode == "paper" else "paper"
    return replace(
        settings,
        gateway_port=settings.second_gateway_port,
        second_gateway_port=0,
        account="",
        trading_mode=mode,
        limits=settings.user_limits[mode],
    )


def build_broker(settings: BrokerSettings, journal: Journal, alerts: Alerts | None = None) -> BaseBroker:
    """The broker that the settings name, guarded and not yet connected. Raises `ConfigurationError`.

    `alerts`: who is told of refusals; the settings' own channel unless given.
    """
    build = BUILDERS.get(settings.broker_type)
    if build is None:
        raise ConfigurationError(
            f"BROKER_TYPE must be one of {', '.join(sorted(BUILDERS))}, not {settings.broker_type[:40]!a}"
        )
    alerts = alerts or Alerts(settings.alert_urls, secrets=settings.secrets)
    journal.outcome_unknown = alerts.outcome_unknown
    guard = guard_for(settings, journal, refused=alerts.refused)
    broker = build(settings, journal, guard)
    guard.attach(broker)
    return broker


def get_broker() -> BaseBroker:
    """Factory function to get the configured broker, connected where it is there.

    Reads `BROKER_TYPE` (alpaca unless set) and the plan's other variables. The journal is the
    database of `DATABASE_URL`, else the SQLite file `BROKER_JOURNAL` (by default under the
    user's state folder). Raises `ConfigurationError`. A broker that is away isn't an error here:
    it goes on connecting, and its methods raise `NotConnected` meanwhile.
    """
    settings = settings_from_environment(os.environ)
    alerts = Alerts(settings.alert_urls, secrets=settings.secrets)
    broker = build_broker(settings, journal_from_environment(os.environ), alerts)
    if settings.alert_urls:
        AlertWatch(broker, alerts).start()
    try:
        broker.connect()
    except NotConnected as away:
        log.warning("%s is away, and connecting goes on: %s", broker.name, away.reason)
    return broker


def journal_from_environment(environment: Mapping[str, str]) -> Journal:
    """The journal for use as a library. Makes the SQLite file readable for its owner only."""
    url = environment.get("DATABASE_URL")
    if url:
        from sqlalchemy import create_engine

        return Journal(create_engine(url, pool_pre_ping=True))
    state = Path(environment.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    path = Path(environment.get("BROKER_JOURNAL") or state / "broker" / "orders.sqlite")
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    path.touch(mode=0o600)
    return Journal.in_file(str(path))


def _account(environment: Mapping[str, str], broker_type: str) -> str:
    # IBEAM_ACCOUNT is IBeam's own variable, and means the login's name.
    own = environment.get("IBEAM_ACCOUNT_ID") if broker_type == "ibeam" else ""
    return (own or environment.get("IBKR_ACCOUNT") or "").strip()


def _alpaca(settings: BrokerSettings, journal: Journal, guard: Guard) -> BaseBroker:
    if not (settings.alpaca_api_key and settings.alpaca_secret_key):
        raise ConfigurationError("not configured: alpaca needs ALPACA_API_KEY and ALPACA_SECRET_KEY")
    from broker.brokers.alpaca import AlpacaBroker

    return AlpacaBroker(
        journal,
        api_key=settings.alpaca_api_key,
        secret_key=settings.alpaca_secret_key,
        paper=settings.alpaca_paper,
        endpoint=settings.alpaca_endpoint,
        data_endpoint=settings.alpaca_data_endpoint,
        stream_endpoint=settings.alpaca_stream_endpoint,
        guard=guard,
    )


def _ibkr(settings: BrokerSettings, journal: Journal, guard: Guard) -> BaseBroker:
    from broker.brokers.ibkr import IBKRBroker

    return IBKRBroker(
        journal,
        host=settings.gateway_host,
        port=settings.gateway_port,
        client_id=settings.client_id,
        account=settings.account,
        trading_mode=settings.trading_mode,
        guard=guard,
    )


def _ibeam(settings: BrokerSettings, journal: Journal, guard: Guard) -> BaseBroker:
    known = settings.ibeam_ca_file or settings.ibeam_certificate
    if not (settings.ibeam_url and (known or settings.ibeam_token)):
        # Without a token there is no proxy with a key of its own, only IBeam's, which everybody has.
        raise ConfigurationError(
            "not configured: ibeam needs IBEAM_URL and IBEAM_CA_FILE, or IBEAM_URL and IBEAM_TOKEN "
            "(the certificate first seen there is pinned then)"
        )
    from broker.brokers.client_portal import ClientPortalBroker
    from broker.brokers.client_portal.tls import FixedPin, KeptPin, Pin
    from broker.pins import PinnedCertificates

    pin: Pin | None = None
    if settings.ibeam_certificate:
        pin = FixedPin(settings.ibeam_certificate)
    elif not settings.ibeam_ca_file:
        pin = KeptPin(PinnedCertificates(journal.engine), settings.ibeam_url)
    return ClientPortalBroker(
        journal,
        url=settings.ibeam_url,
        ca_file=settings.ibeam_ca_file,
        pin=pin,
        token=settings.ibeam_token,
        account=settings.account,
        trading_mode=settings.trading_mode,
        confirm=settings.ibeam_confirm,
        take_over=settings.ibeam_take_over,
        shared=settings.ibeam_shared,
        guard=guard,
    )


def _simulated(settings: BrokerSettings, journal: Journal, guard: Guard) -> BaseBroker:
    from broker.brokers.simulated import SimulatedBroker

    return SimulatedBroker(journal, guard=guard)


BUILDERS: dict[str, Callable[[BrokerSettings, Journal, Guard], BaseBroker]] = {
    "alpaca": _alpaca,
    "ibeam": _ibeam,
    "ibkr": _ibkr,
    "simulated": _simulated,
}
