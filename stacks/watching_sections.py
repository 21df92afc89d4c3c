"""The sections of what watches an environment and its bill; the others are in `sections`."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stacks.section import Section
from stacks.values import BillingAccount, Thresholds, matching


class Alerts(Section):
    """Google's alert policies over the service's log lines (components/alert_rules.py), and whom they mail.

    They also notice a service that is gone and can't tell by `Config.alert_urls`.
    """

    # Whom Google mails.
    emails: tuple[
        Annotated[str, matching(r"[^@\s]+@[^@\s]+\.[^@\s]+", "use a mail address: ann@company.com")], ...
    ] = ()


class Monitoring(Section):
    """What Cloud Monitoring shows of the environment, and looks at from outside."""

    # A dashboard (components/panels.py) and the log-based metrics that it shows.
    dashboard: bool = True
    # Google asks the service's public health path every minute, from all over the world. Default: where the
    # service is public.
    uptime_check: bool | None = None


class Budget(Section):
    """An alert on what the Google project costs, by mail to `Alerts.emails` and the account's own admins.

    Whoever deploys needs `roles/billing.costsManager` on the billing account, and `gcp:userProjectOverride`
    with `gcp:billingProject` if it is a person.
    """

    # The account that pays, as `gcloud billing accounts list` shows it.
    billing_account: BillingAccount | None = None
    # A month's, in whole units of the account's currency.
    amount: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    # Default: the account's own. It can't be another.
    currency: Annotated[str, matching(r"[A-Z]{3}", "use three capital letters: USD")] | None = None
    # Shares of it at which a mail is sent; and one when the month is forecast to exceed it.
    thresholds: Thresholds = (0.5, 0.9, 1.0)
    # Whether the forecast is told, too.
    forecast: bool = True
