"""Budgets of a billing account. Nothing is counted here: the local cloud costs nothing."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import GcpHandler
from localcloud.providers.gcp.monitoring import BUDGET, CHANNEL
from localcloud.providers.resource import digest, not_found
from localcloud.providers.schema import Failure
from localcloud.secrets import PROJECT_NUMBER
from localcloud.state import Resource

# The one account that the local project is billed to, and its currency.
ACCOUNT, CURRENCY = "010101-010101-010101", "USD"
_ACCOUNT = re.compile(r"[0-9A-F]{6}-[0-9A-F]{6}-[0-9A-F]{6}")
_MOST_THRESHOLDS, _LONGEST_NAME = 100, 60


def _bad(message: str) -> CloudError:
    return CloudError(400, f"Request contains an invalid argument. {message}", "badRequest")


class Budget(GcpHandler):
    """A budget, and what is told when it is used up."""

    token = BUDGET
    noun = "Budget"

    def identify(self, inputs: dict[str, Any]) -> str:
        account = inputs["billingAccount"]
        return f"billingAccounts/{account}/budgets/{digest(account, time.time_ns())}"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        account = inputs.get("billingAccount")
        if isinstance(account, str) and not _ACCOUNT.fullmatch(account.removeprefix("billingAccounts/")):
            yield Failure("billingAccount", f"{account!r} isn't a billing account's id: 012345-6789AB-CDEF01")

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        if inputs["billingAccount"] != ACCOUNT:
            raise CloudError(403, "The caller does not have permission", "forbidden")
        if len(inputs.get("displayName") or "") > _LONGEST_NAME:
            raise _bad(f"displayName: {_LONGEST_NAME} characters at most")
        self._verify_amount((inputs.get("amount") or {}).get("specifiedAmount"))
        rules = inputs.get("thresholdRules") or []
        if len(rules) > _MOST_THRESHOLDS or any(float(rule["thresholdPercent"]) <= 0 for rule in rules):
            raise _bad(f"thresholdRules: shares of the amount above 0, {_MOST_THRESHOLDS} at most")
        filter_ = inputs.get("budgetFilter") or {}
        forecasts = [rule for rule in rules if rule.get("spendBasis") == "FORECASTED_SPEND"]
        if forecasts and filter_.get("customPeriod"):
            raise _bad("thresholdRules: a custom period can't be forecast")
        own = {f"projects/{name}" for name in (PROJECT_NUMBER, self.cloud.settings.project)}
        for project in filter_.get("projects") or []:
            if project not in own:
                raise _bad(f"budgetFilter.projects: {project} isn't a project of this billing account")
        for channel in (inputs.get("allUpdatesRule") or {}).get("monitoringNotificationChannels") or []:
            found = self.cloud.store.get(CHANNEL, channel)
            if found is None:
                raise not_found(channel)
            if found.outputs["type"] != "email":
                raise _bad(f"allUpdatesRule: {channel} isn't an email channel")

    def _verify_amount(self, amount: dict[str, Any] | None) -> None:
        if amount is None:
            return
        currency = amount.get("currencyCode")
        if currency and currency != CURRENCY:
            raise _bad(f"amount.specifiedAmount.currencyCode: the account's currency is {CURRENCY}")
        units = amount.get("units") or "0"
        if not re.fullmatch(r"\d+", units) or (int(units) == 0 and not amount.get("nanos")):
            raise _bad(f"amount.specifiedAmount.units: {units!r} isn't an amount above 0")

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        amount = dict(inputs["amount"])
        if amount.get("specifiedAmount"):
            amount["specifiedAmount"] = {"currencyCode": CURRENCY, **amount["specifiedAmount"]}
        return {"name": resource_id.rpartition("/")[2], "amount": amount}


HANDLERS = (Budget,)
