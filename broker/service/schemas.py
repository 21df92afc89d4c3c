"""The bodies of requests. Answers are the dataclasses of `broker.models`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool
from pydantic.config import JsonDict

from broker.errors import FieldProblem, InvalidRequest
from broker.models import OrderRequest, Quote

# Strict: a number written as text is refused. (A union of float and int would name its parts in errors.)
Number = Annotated[float, Field(strict=True, gt=0, le=10_000_000, allow_inf_nan=False)]

_ASKED: JsonDict = {"symbol": "AAPL", "side": "buy", "client_order_id": "signal-17"}


class OrderBody(BaseModel):
    """An order as it is posted. `client_order_id` here, or the same in an `Idempotency-Key` header."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                _ASKED | {"order_type": "market", "qty": 1},
                _ASKED | {"order_type": "limit", "qty": 10, "limit_price": 195.5, "time_in_force": "gtc"},
                _ASKED | {"order_type": "stop", "side": "sell", "qty": 10, "stop_price": 180.0},
                _ASKED | {"order_type": "trailing_stop", "side": "sell", "qty": 10, "trail_percent": 3.0},
                _ASKED
                | {"order_type": "limit", "qty": 10, "limit_price": 195.5}
                | {"take_profit_price": 210.0, "stop_loss_price": 185.0},
            ]
        },
    )

    symbol: str = Field(max_length=32, description="A ticker: AAPL, BRK.B")
    side: Literal["buy", "sell"]
    qty: Number | None = Field(default=None, description="Shares; required unless notional is given")
    order_type: Literal["market", "limit", "stop", "stop_limit", "trailing_stop"]
    limit_price: Number | None = Field(default=None, description="Dollars; of limit and stop_limit orders")
    time_in_force: Literal["day", "gtc", "ioc", "fok", "opg", "cls"] = "day"
    client_order_id: str | None = Field(
        default=None, min_length=1, max_length=64, description="Yours; here or as Idempotency-Key"
    )
    stop_price: Number | None = Field(default=None, description="Dollars; of stop and stop_limit orders")
    notional: Number | None = Field(default=None, description="Dollars to spend, in place of qty")
    trail_amount: Number | None = Field(default=None, description="Dollars; of trailing_stop orders")
    trail_percent: Number | None = Field(default=None, description="Per cent; of trailing_stop orders")
    take_profit_price: Number | None = Field(default=None, description="Dollars; with stop_loss_price")
    stop_loss_price: Number | None = Field(default=None, description="Dollars; with take_profit_price")
    account: str = Field(default="", max_length=64, description="One of the login's; its own if empty")
    extended_hours: StrictBool = False

    def request(self, client_order_id: str, placed_by: str) -> OrderRequest:
        """The order asked for. Raises `InvalidRequest` without a quantity or an amount."""
        if self.qty is None and self.notional is None:
            said = "is required, or a notional amount in its place"
            value = "None" if "qty" in self.model_fields_set else "nothing"
            raise InvalidRequest([FieldProblem("qty", said, value)])
        values = self.model_dump(exclude={"qty", "client_order_id"})
        return OrderRequest(qty=self.qty or 0, client_order_id=client_order_id, placed_by=placed_by, **values)


class ReplaceBody(BaseModel):
    """What changes of a working order; what isn't named stays."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"limit_price": 150.25}]})

    qty: Number | None = Field(default=None, description="Shares, those that were filled included")
    limit_price: Number | None = Field(default=None, description="Dollars")
    stop_price: Number | None = Field(default=None, description="Dollars")
    time_in_force: Literal["day", "gtc", "ioc", "fok", "opg", "cls"] | None = None


@dataclass
class AgedQuote(Quote):
    """A quote with its age in seconds when it was sent."""

    age: float = 0.0
