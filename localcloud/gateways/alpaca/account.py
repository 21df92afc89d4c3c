"""/v2/account and what belongs to it, and /v2/positions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from localcloud.gateways.alpaca import orders, symbols
from localcloud.gateways.alpaca.errors import ApiError, malformed, not_found, unprocessable
from localcloud.gateways.alpaca.order_form import number
from localcloud.gateways.alpaca.order_view import OPEN, order_id, status
from localcloud.gateways.alpaca.session import AccountSession

Json = dict[str, Any]
Query = dict[str, str]
PAGE_SIZE = 100
#: When the accounts of the paper exchange were opened isn't kept.
OPENED = "2024-01-02T14:30:00Z"


async def account(session: AccountSession) -> Json:
    """GET /v2/account.

    pattern_day_trader, daytrade_count and daytrading_buying_power are left out: Alpaca's answers have had
    none since 2026-07-06 (alpaca-py 0.44, trading/models.py, TradeAccount).
    """
    summary = (await session.call("account_summary", account=session.account))["summary"]
    power = (await session.call("buying_power", account=session.account))["buying_power"]
    gross, net = summary["gross_position_value"], summary["stock_value"]
    equity = summary["net_liquidation"]
    return {
        "id": symbols.made_id("account", session.account),
        "account_number": session.account,
        "status": "ACTIVE",
        "crypto_status": "INACTIVE",
        "currency": "USD",
        "buying_power": symbols.money(power),
        "regt_buying_power": symbols.money(max(0.0, 2 * (equity - summary["reg_t_margin"]))),
        "effective_buying_power": symbols.money(power),
        "non_marginable_buying_power": symbols.money(max(0.0, summary["total_cash"])),
        "options_buying_power": "0",
        "options_approved_level": 0,
        "options_trading_level": 0,
        "cash": symbols.money(summary["total_cash"]),
        "accrued_fees": "0",
        "portfolio_value": symbols.money(equity),
        "equity": symbols.money(equity),
        "last_equity": symbols.money(summary["previous_equity"]),
        "long_market_value": symbols.money((gross + net) / 2),
        "short_market_value": symbols.money((net - gross) / 2),
        "position_market_value": symbols.money(gross),
        "initial_margin": symbols.money(summary["reg_t_margin"]),
        "maintenance_margin": symbols.money(summary["maint_margin"]),
        "last_maintenance_margin": symbols.money(summary["maint_margin"]),
        "sma": symbols.money(summary["sma"]),
        "multiplier": "4",
        "trading_blocked": False,
        "transfers_blocked": False,
        "account_blocked": False,
        "trade_suspended_by_user": False,
        "shorting_enabled": True,
        "created_at": OPENED,
    }


async def configurations(_: AccountSession) -> Json:
    """GET /v2/account/configurations: the defaults; they can't be changed here."""
    return {
        "fractional_trading": True,
        "max_margin_multiplier": "4",
        "no_shorting": False,
        "suspend_trade": False,
        "trade_confirm_email": "all",
        "ptp_no_exception_entry": False,
        "max_options_trading_level": None,
    }


async def positions(session: AccountSession) -> list[Json]:
    """GET /v2/positions."""
    rows = (await session.call("positions", account=session.account))["positions"]
    working = (await session.call("open_orders", account=session.account))["orders"]
    return [_position(row, working) for row in rows]


async def position(session: AccountSession, symbol_or_id: str) -> Json:
    """GET /v2/positions/{symbol_or_asset_id}."""
    row = await _held(session, symbol_or_id)
    working = (await session.call("open_orders", account=session.account))["orders"]
    return _position(row, working)


async def close_position(session: AccountSession, symbol_or_id: str, query: Query) -> Json:
    """DELETE /v2/positions/{symbol_or_asset_id}: the market order that closes it, or a part of it."""
    row = await _held(session, symbol_or_id)
    held = abs(row["position"])
    quantity, percentage = number(query, "qty"), number(query, "percentage")
    if quantity is not None and percentage is not None:
        raise malformed("only one of qty or percentage is accepted")
    if percentage is not None and not 0 < percentage <= 100:
        raise unprocessable("percentage must be between 0 and 100")
    if percentage is not None:
        quantity = round(held * percentage / 100, 9)
    if quantity is not None and quantity <= 0:
        raise unprocessable("qty must be > 0")
    side = "SELL" if row["position"] > 0 else "BUY"
    return await orders.market_order(session, row["conid"], side, held if quantity is None else quantity)


async def close_all(session: AccountSession, query: Query) -> list[Json]:
    """DELETE /v2/positions: an answer for each position (207)."""
    if query.get("cancel_orders", "").lower() == "true":
        await orders.cancel_all(session)
    answers = []
    for row in (await session.call("positions", account=session.account))["positions"]:
        symbol = symbols.to_alpaca(row["contract"]["symbol"])
        try:
            code, body = 200, await close_position(session, symbol, {})
        except ApiError as error:
            code, body = error.status, error.body
        answers.append({"symbol": symbol, "status": code, "body": body})
    return answers


async def activities(session: AccountSession, kinds: str, query: Query) -> list[Json]:
    """GET /v2/account/activities: fills, and the fees that were booked by the admin socket."""
    wanted = set(filter(None, kinds.upper().split(",")))
    found = await _fills(session) if not wanted or "FILL" in wanted else []
    found += [dict(fee) for fee in session.fees if not wanted or fee["activity_type"] in wanted]
    # Not by their ids alone, which have milliseconds: an order's fills may come closer together.
    found = [one for one in found if _within(_time_of(one), query)]
    found.sort(key=lambda one: (datetime.fromisoformat(_time_of(one)), str(one["id"])))
    if query.get("direction", "desc") == "desc":
        found.reverse()
    token = query.get("page_token")
    if token:
        ids = [one["id"] for one in found]
        found = found[ids.index(token) + 1 :] if token in ids else []
    size = query.get("page_size", str(PAGE_SIZE))
    if not size.isdigit() or not 1 <= int(size) <= PAGE_SIZE:
        raise malformed(f"page_size must be between 1 and {PAGE_SIZE}")
    return found[: int(size)]


async def _fills(session: AccountSession) -> list[Json]:
    fills = (await session.call("executions", account=session.account))["executions"]
    rows = (await session.call("orders", account=session.account))["orders"]
    known = {row["perm_id"]: row for row in rows}
    return [_fill(session, fill, known[fill["perm_id"]]) for fill in fills]


def _time_of(activity: Json) -> str:
    """Trades have a time, everything else has a day."""
    return str(activity.get("transaction_time") or f"{activity['date']}T00:00:00+00:00")


async def portfolio_history(session: AccountSession) -> Json:
    """GET /v2/account/portfolio/history: two days; the exchange keeps no longer record."""
    summary = (await session.call("account_summary", account=session.account))["summary"]
    now = int((await session.call("server_time"))["time"])
    before, equity = summary["previous_equity"], summary["net_liquidation"]
    profit = round(equity - before, 2)
    return {
        "timestamp": [now - 86_400, now],
        "equity": [before, equity],
        "profit_loss": [0.0, profit],
        "profit_loss_pct": [0.0, round(profit / before, 6) if before else 0.0],
        "base_value": before,
        "base_value_asof": datetime.fromtimestamp(now - 86_400, UTC).date().isoformat(),
        "timeframe": "1D",
    }


async def _held(session: AccountSession, symbol_or_id: str) -> Json:
    instrument = symbols.find(symbol_or_id)
    if instrument is None:
        raise not_found(f"symbol not found: {symbol_or_id}")
    for row in (await session.call("positions", account=session.account))["positions"]:
        if row["conid"] == instrument.conid:
            return dict(row)
    raise not_found("position does not exist")


def _position(row: Json, working: list[Json]) -> Json:
    symbol = symbols.to_alpaca(row["contract"]["symbol"])
    held, price, close = row["position"], row["market_price"], row["previous_close"]
    cost = held * row["average_cost"]
    # Since when shares are held isn't kept: the day's profit is that of shares held since yesterday.
    today = held * (price - close)
    return {
        "asset_id": symbols.asset_id(symbol),
        "symbol": symbol,
        "exchange": row["contract"]["primary_exchange"],
        "asset_class": "us_equity",
        "asset_marginable": True,
        "qty": symbols.text(held),
        "qty_available": symbols.text(held - _held_for_orders(row, working)),
        "avg_entry_price": symbols.text(row["average_cost"], 6),
        "side": "long" if held > 0 else "short",
        "market_value": symbols.text(row["market_value"], 6),
        "cost_basis": symbols.text(cost, 6),
        "unrealized_pl": symbols.text(row["unrealized_pnl"], 6),
        "unrealized_plpc": symbols.text(row["unrealized_pnl"] / abs(cost) if cost else 0.0),
        "unrealized_intraday_pl": symbols.text(today, 6),
        "unrealized_intraday_plpc": symbols.text(today / abs(held * close) if close else 0.0),
        "current_price": symbols.text(price, 4),
        "lastday_price": symbols.text(close, 4),
        "change_today": symbols.text(price / close - 1 if close else 0.0),
    }


def _held_for_orders(row: Json, working: list[Json]) -> float:
    """Shares, signed as the position, that open orders will close; linked orders close them once."""
    closing = "SELL" if row["position"] > 0 else "BUY"
    by_group: dict[str, float] = {}
    for order in working:
        if order["conid"] == row["conid"] and order["side"] == closing and status(order) in OPEN:
            if order["parent"] is not None and not order["routed"]:
                continue
            key = order["group"] or str(order["perm_id"])
            by_group[key] = max(by_group.get(key, 0.0), order["remaining"])
    return sum(by_group.values()) * (1 if row["position"] > 0 else -1)


def _fill(session: AccountSession, fill: Json, order: Json) -> Json:
    at = datetime.fromtimestamp(fill["time"], UTC)
    leaves = max(0.0, order["quantity"] - fill["cumulative"])
    return {
        "id": f"{at:%Y%m%d%H%M%S}{at.microsecond // 1000:03d}::{symbols.made_id('fill', fill['exec_id'])}",
        "account_id": symbols.made_id("account", session.account),
        "activity_type": "FILL",
        "transaction_time": symbols.moment(fill["time"]),
        "type": "partial_fill" if leaves else "fill",
        "price": symbols.text(fill["price"]),
        "qty": symbols.text(fill["quantity"]),
        "side": fill["side"].lower(),
        "symbol": symbols.to_alpaca(fill["contract"]["symbol"]),
        "leaves_qty": symbols.text(leaves),
        "order_id": order_id(session.account, fill["perm_id"]),
        "cum_qty": symbols.text(fill["cumulative"]),
        "order_status": "partially_filled" if leaves else "filled",
    }


def _within(written: str, query: Query) -> bool:
    """Whether a time lies on `date`, after `after` and until `until`; dates are days of UTC."""
    moments = {name: query[name] for name in ("after", "until", "date") if query.get(name)}
    if "date" in moments and written[:10] != moments["date"][:10]:
        return False
    at = datetime.fromisoformat(written)
    for name, wanted in moments.items():
        try:
            limit = datetime.fromisoformat(wanted)
        except ValueError:
            raise malformed(f"{name} is not a time: {wanted}") from None
        limit = limit if limit.tzinfo else limit.replace(tzinfo=UTC)
        if (name == "after" and at <= limit) or (name == "until" and at > limit):
            return False
    return True
