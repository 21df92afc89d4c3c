"""How the gateway refuses."""

from __future__ import annotations


class Refusal(Exception):
    """An answer other than 200: `{"error": message, "statusCode": status}`, as the real gateway words it.

    401 nobody is logged in; 400 `no bridge`: no brokerage session (call ssodh/init); 429 too many requests;
    500 also for some bad requests; 503 IBKR's servers don't answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def not_logged_in() -> Refusal:
    """Nobody is logged in."""
    return Refusal(401, "not authenticated")


def no_bridge() -> Refusal:
    """Seen in public reports word for word (ibind 44)."""
    return Refusal(400, "Bad Request: no bridge")


def accounts_first() -> Refusal:
    """What calls get that need /iserver/accounts or /portfolio/accounts to have been asked before."""
    return Refusal(500, "Please query /accounts first")


def unavailable() -> Refusal:
    """IBKR's servers don't answer; what was asked of them may have been done."""
    return Refusal(503, "Service Unavailable")
