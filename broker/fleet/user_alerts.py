"""Where an account's own user is alerted: one channel an account, sealed like its credentials.

The address comes from a user and is called from inside our network, so only services at fixed hosts of their
own are taken, and no options: a query can name other hosts, files and templates.
"""

from __future__ import annotations

import logging
import re

from sqlalchemy import Engine, delete, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import SQLAlchemyError

from broker.alert_kinds import Kind
from broker.alerts import Alerts, understood
from broker.fleet.account import Account
from broker.fleet.models import account_alerts
from broker.fleet.vault import Sealed, Vault, VaultError

log = logging.getLogger(__name__)

#: apprise's schemes of the services whose address no URL can change, and what theirs look like
SERVICES = {
    "tgram": "tgram://BOT_TOKEN/CHAT_ID",
    "discord": "discord://WEBHOOK_ID/WEBHOOK_TOKEN",
    "slack": "slack://TOKEN_A/TOKEN_B/TOKEN_C/CHANNEL",
    "pover": "pover://USER_KEY@APP_TOKEN",
    "pbul": "pbul://ACCESS_TOKEN",
}
LONGEST_URL = 500
_URL = re.compile(r"([a-z]+)://[\x21-\x7e]+")
_ROW = account_alerts.c


class AlertUrlError(ValueError):
    """The address can't be used; the message says why and what to write, and holds no part of it."""


def check_alert_url(url: str) -> str:
    """The service's scheme. Raises AlertUrlError."""
    found = _URL.fullmatch(url)
    if not found or found[1] not in SERVICES or len(url) > LONGEST_URL:
        raise AlertUrlError(f"use an address such as {', '.join(SERVICES.values())}")
    if "?" in url or "%3f" in url.lower():
        raise AlertUrlError("leave out the part from ? on: options aren't taken here")
    if not understood(url):
        raise AlertUrlError(f"this isn't a complete address: it looks like {SERVICES[found[1]]}")
    return found[1]


class UserAlerts:
    """The channels of users. Blocking; usable from several threads."""

    def __init__(self, engine: Engine, vault: Vault, source: str) -> None:
        """`source`: who speaks, the stack's name."""
        self._engine = engine
        self._vault = vault
        # Not the operators': thousands of logins may wait at the same moment.
        self._alerts = Alerts(source=source, most_per_hour=10_000, queued=5_000)

    def set(self, account: Account, url: str) -> str:
        """Keeps the account's channel, and tells it so; the service's scheme.

        Raises AlertUrlError, VaultError, SQLAlchemyError.
        """
        scheme = check_alert_url(url)
        sealed = self._vault.seal(account.id, {"alert_url": url})
        values = {
            "scheme": scheme,
            "key_name": sealed.key_name,
            "sealed_data_key": sealed.data_key,
            "sealed_alert_url": sealed.values["alert_url"],
            "updated_at": func.clock_timestamp(),
        }
        made = insert(account_alerts).values(account_id=account.id, **values)
        with self._engine.begin() as db:
            db.execute(made.on_conflict_do_update(index_elements=["account_id"], set_=values))
        self._alerts.tell(url, account.id, Kind.ALERTS_HERE, f"account {account.id}")
        return scheme

    def remove(self, account: Account) -> None:
        """Forgets the account's channel."""
        with self._engine.begin() as db:
            db.execute(delete(account_alerts).where(_ROW.account_id == account.id))

    def service(self, account: Account) -> str | None:
        """The scheme of the account's channel; None if it has none."""
        with self._engine.connect() as db:
            found: str | None = db.execute(
                select(_ROW.scheme).where(_ROW.account_id == account.id)
            ).scalar_one_or_none()
        return found

    def tell(self, account: Account) -> bool:
        """Alerts the account's user of its status' reason. Whether there is a channel; never raises."""
        query = select(_ROW.key_name, _ROW.sealed_data_key, _ROW.sealed_alert_url)
        try:
            with self._engine.connect() as db:
                row = db.execute(query.where(_ROW.account_id == account.id)).first()
            if row is None:
                return False
            url = self._vault.unseal(account.id, Sealed(row[0], row[1], {"alert_url": row[2]}))["alert_url"]
        except (SQLAlchemyError, VaultError) as failure:
            log.warning("the user can't be alerted: %s", type(failure).__name__)
            return False
        text = f"account {account.id}: {account.message}"
        self._alerts.tell(url, account.id, account.status_reason, text)
        return True
