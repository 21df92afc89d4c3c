"""How the API refuses: `{"code": 40310000, "message": "insufficient buying power", ...}`.

The code is the HTTP status and a number of Alpaca's. Message strings "can change without notice"; the code
and the status "are the stable contract" (docs.alpaca.markets, Options Trading Overview, Error Responses).
"""

from __future__ import annotations

from typing import Any

from localcloud.exchange.models import Refused


class ApiError(Exception):
    """An answer that isn't a success. `details` are further members of its body."""

    def __init__(self, status: int, code: int | None, message: str, **details: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body: dict[str, Any] = {**details, **({"code": code} if code else {}), "message": message}


def malformed(message: str) -> ApiError:
    """422 with the code for requests that lack something or contradict themselves."""
    return ApiError(422, 40010001, message)


def unprocessable(message: str) -> ApiError:
    """422 for what is well-formed and can't be done."""
    return ApiError(422, 42210000, message)


def forbidden(message: str, **details: Any) -> ApiError:
    """403 for what the account may not do, for want of money, shares or permission."""
    return ApiError(403, 40310000, message, **details)


def not_found(message: str) -> ApiError:
    """404."""
    return ApiError(404, 40410000, message)


def unauthorized() -> ApiError:
    """401 for a key that isn't there or a secret that doesn't fit."""
    return ApiError(401, 40110000, "request is not authorized")


def unavailable() -> ApiError:
    """503: the exchange isn't there, and nothing was done."""
    return ApiError(503, 50310000, "service unavailable")


def timed_out() -> ApiError:
    """504: whether it was done is unknown. The body is ours; Alpaca documents none for a 504."""
    return ApiError(504, 50410000, "request timed out")


def worded(refusal: Refused) -> ApiError:
    """The exchange's refusal in Alpaca's words."""
    match refusal.code:
        case "duplicate_reference":
            return malformed("client_order_id must be unique")
        case "buying_power":
            return forbidden("insufficient buying power")
        case "quantity_held" | "permission":
            return forbidden(refusal.message)
        case "unknown_order":
            return not_found("order not found")
        case "not_logged_in":
            return unavailable()
        case _:
            return unprocessable(refusal.message)
