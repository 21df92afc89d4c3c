"""The bodies of requests. Answers are the dataclasses of `broker.models`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt

Number = Annotated[StrictFloat | StrictInt, Field(gt=0, le=10_000_000, allow_inf_nan=False)]


class OrderBody(BaseModel):
    """An order as it is posted. `client_order_id` here, or the same in an `Idempotency-Key` header."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "symbol": "AAPL",
                    "side": "buy",
                    "qty": 1,
                    "order_type": "market",
                    "client_order_id": "mine-1",
                }
            ]
        },
    )

    symbol: str = Field(max_length=32, description="A ticker: AAPL, BRK.B")
    side: Literal["buy", "sell"]
    qty: Number = Field(description="Shares")
    order_type: Literal["market", "limit"]
    limit_price: Number | None = Field(default=None, description="Dollars; required for a limit order")
    time_in_force: Literal["day", "gtc"] = "day"
    client_order_id: str | None = Field(default=None, min_length=1, max_length=64)
