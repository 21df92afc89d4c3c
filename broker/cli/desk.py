"""What every command works with: where it prints, and the broker that the settings name."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from sqlalchemy.exc import SQLAlchemyError

from broker.alerts import Alerts, alert_urls
from broker.base import BaseBroker
from broker.cli.exits import as_json
from broker.errors import ConfigurationError, FieldProblem, InvalidRequest
from broker.factory import BrokerSettings, build_broker, journal_from_environment, settings_from_environment
from broker.journal import Journal
from broker.market.quotes import CachedQuotes, needs_broker, quote_source

#: the service's connection has client id 1; a second one with it would be refused (326)
CLIENT_ID = "2"
#: seconds that a command waits at its end for its alerts to be sent
ALERTS_WITHIN = 10.0
#: what may stand in no alert
SECRETS = ("ALPACA_API_KEY", "ALPACA_SECRET_KEY", "IBEAM_TOKEN")


@dataclass
class Desk:
    """One command's surroundings. `close` it at the end."""

    json: bool = False
    broker_type: str = ""
    account: str = ""
    client_id: int | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ)
    out: Console = field(default_factory=lambda: Console(soft_wrap=True, highlight=False))
    err: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True, highlight=False))
    _broker: BaseBroker | None = None
    _alerts: Alerts | None = None

    def settings_environment(self) -> dict[str, str]:
        """The environment with this command's options in it."""
        found = {"IBKR_CLIENT_ID": CLIENT_ID} | {k: v for k, v in self.environment.items() if v}
        if self.broker_type:
            found["BROKER_TYPE"] = self.broker_type
        if self.account:
            found["IBKR_ACCOUNT"] = found["IBEAM_ACCOUNT_ID"] = self.account
        if self.client_id is not None:
            found["IBKR_CLIENT_ID"] = str(self.client_id)
        return found

    @property
    def settings(self) -> BrokerSettings:
        """What the environment and the options say. Raises `ConfigurationError`."""
        return settings_from_environment(self.settings_environment())

    def made(self) -> BaseBroker:
        """The broker, not connected. Raises `ConfigurationError`."""
        if self._broker is None:
            self._broker = build_broker(self.settings, self.journal(), self.alerts)
        return self._broker

    @property
    def alerts(self) -> Alerts:
        """Where ALERT_URLS says that people are told. Needs no other setting: a halt must always work."""
        if self._alerts is None:
            environment = self.settings_environment()
            secrets = [environment.get(name, "") for name in SECRETS]
            urls = alert_urls(environment.get("ALERT_URLS", ""))
            self._alerts = Alerts(urls, secrets=secrets, source=environment.get("STACK", ""))
        return self._alerts

    def journal(self) -> Journal:
        """The journal of orders. Raises `ConfigurationError`."""
        try:
            return journal_from_environment(self.settings_environment())
        except (OSError, SQLAlchemyError) as failure:
            # Only the kind: an engine's own words may hold the password of DATABASE_URL.
            said = "DATABASE_URL or BROKER_JOURNAL: the journal of orders can't be opened"
            raise ConfigurationError(f"{said}: {type(failure).__name__}") from None

    def broker(self) -> BaseBroker:
        """The broker, connected, on the wanted account. Raises `ConfigurationError`, `NotConnected`."""
        broker = self.made()
        broker.connect()
        if self.account:
            self._check_account(broker)
        return broker

    def _check_account(self, broker: BaseBroker) -> None:
        # Showing or trading another account than the one asked for would be worse than any refusal.
        own = broker.get_accounts()[0]
        if own != self.account:
            said = f"this connection trades {own}"
            raise InvalidRequest([FieldProblem("account", said, self.account[:64])])

    def quotes(self) -> CachedQuotes:
        """Prices from where MARKET_DATA_SOURCE says, connected if that is the broker.

        Raises `ConfigurationError`, `NotConnected`.
        """
        environment = self.settings_environment()
        return quote_source(environment, self.broker() if needs_broker(environment) else None)

    def show(self, document: dict[str, Any], *tables: Any) -> None:
        """Print the result: the document with `--json`, the tables for people."""
        if self.json:
            self.print_json(document)
            return
        for table in tables:
            self.out.print(table)

    def print_json(self, document: Any, indent: int | None = 2) -> None:
        """One JSON document on standard output."""
        sys.stdout.write(as_json(document, indent) + "\n")
        sys.stdout.flush()

    def note(self, text: str) -> None:
        """A remark for people, beside the result."""
        if not self.json:
            self.err.print(text, markup=False)

    def close(self) -> None:
        """Disconnect. Orders stay at the broker. What is to be told leaves before the process ends."""
        if self._broker is not None:
            self._broker.disconnect()
        if self._alerts is not None and not self._alerts.flush(ALERTS_WITHIN):
            self.note(f"an alert wasn't sent within {ALERTS_WITHIN:g} s")
