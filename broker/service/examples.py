"""An example of each kind of answer, for the OpenAPI document.

An answer's example is found by its class. A new class of answers needs one here: a test says so.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter

from broker import models
from broker.export import trades_csv
from broker.service import (
    certificates,
    fleet_alerts,
    fleet_operator,
    fleet_schemas,
    halt,
    schemas,
    sessions,
    verification,
)

WHEN = datetime(2026, 11, 20, 15, tzinfo=UTC)
_AT = WHEN.isoformat()
_LATER = "2026-11-20T15:00:01.250000+00:00"
_FINGERPRINT = "3f9a" * 16

ORDER = models.Order(
    id="0b7c3c5e1a4f4c0f9d2e6a8b1c3d5e7f",
    symbol="AAPL",
    side="buy",
    qty=10,
    order_type="limit",
    status="submitted",
    limit_price=195.5,
    created_at=_AT,
    client_order_id="signal-17",
    account_id="DU4716265",
    updated_at=_LATER,
    broker_order_id="31",
    permanent_id="1847225310",
    broker_status="Submitted",
)
_FILL = models.Fill(
    id="0000e0d5.6571aa01.01.01",
    order_id=ORDER.id,
    client_order_id=ORDER.client_order_id,
    symbol="AAPL",
    side="buy",
    qty=10,
    price=195.42,
    time=_LATER,
    commission=1.0,
    account_id="DU4716265",
)
_SWITCH = {"halted": True, "since": WHEN, "by": "ann", "reason": "odd fills"}
_ACCOUNT = fleet_schemas.ConnectedAccount(
    account_id="ib-demo-a1b2c3d4",
    service_id=123456789,
    status="provisioning",
    message="Server provisioning initiated. This process may take a few minutes.",
    environment="demo",
    reason="creating",
    since=WHEN,
    wanted="running",
    policy="always",
    unattended_live=False,
    ib_account="",
    region="nyc1",
    created_at=WHEN,
    checked_at=None,
    billing=fleet_schemas.Billing(
        billed=True,
        monthly_usd=4.0,
        month_usd=1.35,
        total_usd=5.35,
        size="s-1vcpu-512mb-10gb",
        message="DigitalOcean bills 4.00 USD a month while the server exists. Hibernate ends that.",
    ),
)
_USERS = fleet_operator.UsersAccount(
    **_ACCOUNT.model_dump(), user_id="ann", droplet_name="ann-ib-demo-1", failed_logins=0
)
_PASS = fleet_operator.PassDone(ran=True, seconds=0.42, accounts=12, droplets=11, moving=1)

_ANSWERS: tuple[object, ...] = (
    models.AccountInfo(
        id="DU4716265",
        cash=98_045.8,
        buying_power=392_183.2,
        portfolio_value=100_012.3,
        equity=100_012.3,
        last_equity=100_000.0,
        last_equity_source="previous_day_equity",
    ),
    models.Position(
        symbol="AAPL",
        qty=10,
        avg_entry_price=195.42,
        current_price=196.65,
        market_value=1966.5,
        unrealized_pl=12.3,
        unrealized_plpc=0.0063,
        instrument_id="265598",
    ),
    ORDER,
    _FILL,
    models.Fee(
        id="20261120.TAF",
        date="2026-11-20",
        amount=0.01,
        kind="FEE",
        description="TAF fee for proceed of 10 shares (1 trades) on 2026-11-20",
    ),
    models.Timeline(
        order=dataclasses.replace(
            ORDER, status="filled", broker_status="Filled", filled_qty=10, filled_price=195.42, commission=1.0
        ),
        entries=[
            models.TimelineEntry(
                _AT, "status", status="sent", text="entered in the journal, then sent, by ann"
            ),
            models.TimelineEntry(_AT, "status", status="accepted", broker_status="PreSubmitted"),
            models.TimelineEntry(
                _AT,
                "message",
                text="Your order will not be placed at the exchange before it opens",
                code="399",
            ),
            models.TimelineEntry(
                _LATER,
                "status",
                status="filled",
                broker_status="Filled",
                filled_qty=10,
                filled_price=195.42,
            ),
            models.TimelineEntry(_LATER, "fill", fill=_FILL),
        ],
        complete=True,
    ),
    models.OrderPreview(
        symbol="AAPL",
        side="buy",
        qty=10,
        order_type="limit",
        estimated_cost=1955.0,
        commission_range=(1.0, 1.02),
        initial_margin_after=977.5,
        maintenance_margin_after=488.75,
        equity_after=100_011.3,
        buying_power_after=388_273.2,
    ),
    schemas.AgedQuote(
        symbol="AAPL",
        bid=195.41,
        ask=195.43,
        last=195.42,
        close=194.1,
        time=_AT,
        kind="delayed",
        source="ibkr",
        age=0.25,
    ),
    models.Clock(
        time=_AT,
        is_open=True,
        next_open="2026-11-23T14:30:00+00:00",
        next_close="2026-11-20T21:00:00+00:00",
        source="broker",
    ),
    models.Health(
        ok=True, state="connected", since=_AT, proved_at=_LATER, round_trip_ms=12.5, details={"client_id": 1}
    ),
    halt.Switch.model_validate(_SWITCH),
    halt.SwitchWithChanges.model_validate(
        _SWITCH | {"changes": [{"action": "halt", "at": _AT, "by": "ann", "reason": "odd fills"}]}
    ),
    halt.Halting.model_validate(
        _SWITCH | {"under_way": [], "cancelled": {"default": []}, "not_cancelled": {}}
    ),
    verification.VerificationResult(
        passed=True,
        account="DU4716265",
        mode="paper",
        gateway="ibkr 10.10.0.5:4002",
        checks=[
            verification.CheckResult(
                name="account", passed=True, found="DU4716265, a paper account", remedy=""
            )
        ],
    ),
    certificates.GatewayCertificate(
        gateway="203.0.113.20:5000",
        shown=_FINGERPRINT,
        pinned=_FINGERPRINT,
        pinned_at=WHEN,
        pinned_by="first seen",
    ),
    _ACCOUNT,
    fleet_schemas.AccountPage(accounts=[_ACCOUNT], next=None),
    fleet_schemas.History(
        events=[
            fleet_schemas.AccountEvent(
                id=17,
                at=WHEN,
                kind="connect",
                status="provisioning",
                reason="creating",
                message="Server provisioning initiated. This process may take a few minutes.",
                by="ann",
            )
        ],
        next=None,
    ),
    fleet_schemas.LogLines(
        lines=["2026-11-20 15:00:00 Gateway running", "2026-11-20 15:00:04 AUTHENTICATED"]
    ),
    fleet_alerts.AlertsTo(service="tgram"),
    _PASS,
    fleet_operator.FleetOverview(
        runs_passes=True,
        passes_run=True,
        last_pass=_PASS,
        last_pass_at=WHEN,
        accounts=[fleet_operator.AccountCount(status="running", reason="", accounts=12, since=WHEN)],
        quarantine=[
            fleet_operator.UnknownDroplet(
                droplet_id=987654321,
                name="bob-ib-paper-1",
                account_id="ib-paper-0a1b2c3d",
                first_seen=WHEN,
                last_seen=WHEN,
            )
        ],
        digitalocean_calls_left=4890,
    ),
    _USERS,
    fleet_operator.UsersAccountPage(accounts=[_USERS], next=None),
    sessions.Session(user="ann", roles=["trader"], until=1_795_186_800.0),
)

#: the classes of answers, with those of their parts
CLASSES: tuple[type, ...] = tuple(type(answer) for answer in _ANSWERS)
#: an answer's example, as JSON has it, by its schema's name
ANSWERS: Mapping[str, Any] = {
    type(answer).__name__: TypeAdapter(type(answer)).dump_python(answer, mode="json") for answer in _ANSWERS
}

#: examples of answers that aren't told by their class, by operation and status
OF_OPERATION: Mapping[tuple[str, str], Any] = {
    ("get_accounts", "200"): ["DU4716265", "DU4716266"],
    ("healthz", "200"): {"status": "ok"},
    ("readyz", "200"): {"status": "ok"},
    ("health", "200"): {"status": "ok"},
    ("cancel_order", "200"): ANSWERS["Order"] | {"status": "cancelled", "broker_status": "Cancelled"},
    ("cancel_order", "202"): ANSWERS["Order"] | {"status": "pending_cancel"},
    ("cancel_all_orders", "200"): [ANSWERS["Order"] | {"status": "cancelled", "broker_status": "Cancelled"}],
    ("cancel_all_orders", "202"): [ANSWERS["Order"] | {"status": "pending_cancel"}],
    ("close_position", "201"): ANSWERS["Order"]
    | {"side": "sell", "order_type": "market", "limit_price": None, "client_order_id": "out-of-AAPL"},
    ("resume_trading", "200"): ANSWERS["Switch"] | {"halted": False, "reason": "it was the feed"},
    ("get_events", "200"): (
        "retry: 2000\n\nid: 5f0c2a91-17\nevent: status\ndata: "
        + json.dumps({"kind": "status", "time": _AT, "order": {"id": ORDER.id, "status": "submitted"}})
        + "\n\n"
    ),
    ("get_trades", "200"): trades_csv([_FILL], "America/New_York"),
    ("get_metrics", "200"): (
        '# TYPE api_refused_tokens_total counter\napi_refused_tokens_total{error="no_token"} 3.0\n'
    ),
}
