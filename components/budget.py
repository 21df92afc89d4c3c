"""A budget for the Google project, which mails before the month's bill surprises anybody.

It stops nothing: Google's budgets only tell. It counts what Google bills for this project; droplets, market
data and IBKR's commissions are on other bills.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pulumi
import pulumi_gcp as gcp

from components.options import child_options


@dataclass(frozen=True, slots=True)
class BudgetArgs:
    """`amount` a month, in whole units of `currency` (None: the account's own), and `thresholds` as shares
    of it.
    """

    billing_account: str
    project_number: pulumi.Input[str]
    amount: int
    currency: str | None
    thresholds: Sequence[float]
    forecast: bool
    emails: Sequence[str]
    labels: Mapping[str, str]


class Budget(pulumi.ComponentResource):
    """The budget, and channels of its own for those who are mailed beside the account's admins."""

    def __init__(self, name: str, args: BudgetArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:foundation:Budget", name, None, opts)
        child = child_options(self, opts)
        channels = [
            gcp.monitoring.NotificationChannel(
                f"{name}-channel-{number}",
                display_name=f"{name}: {email}",
                type="email",
                labels={"email_address": email},
                user_labels=args.labels,
                opts=child,
            ).id
            for number, email in enumerate(args.emails)
        ]
        rules = [
            gcp.billing.BudgetThresholdRuleArgs(threshold_percent=share, spend_basis="CURRENT_SPEND")
            for share in args.thresholds
        ]
        if args.forecast:
            rules.append(
                gcp.billing.BudgetThresholdRuleArgs(threshold_percent=1.0, spend_basis="FORECASTED_SPEND")
            )
        gcp.billing.Budget(
            f"{name}-budget",
            billing_account=args.billing_account,
            display_name=name,
            budget_filter=gcp.billing.BudgetBudgetFilterArgs(
                projects=[pulumi.Output.concat("projects/", args.project_number)],
                calendar_period="MONTH",
                credit_types_treatment="INCLUDE_ALL_CREDITS",
            ),
            amount=gcp.billing.BudgetAmountArgs(
                specified_amount=gcp.billing.BudgetAmountSpecifiedAmountArgs(
                    units=str(args.amount), currency_code=args.currency
                )
            ),
            threshold_rules=rules,
            all_updates_rule=(
                gcp.billing.BudgetAllUpdatesRuleArgs(monitoring_notification_channels=channels)
                if channels
                else None
            ),
            opts=child,
        )
        self.register_outputs({})
