"""What can go wrong, and what the caller does next.

Three families, because they ask for opposite reactions:
`OrderRejected`, `InvalidRequest` ...  somebody said no: the same call will fail again.
`NotConnected`, `RateLimited` ...      nobody answered, nothing was done: the same call may succeed later.
`OrderOutcomeUnknown`                  nobody knows: look it up, never send it again under another id.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from broker.models import Order


@dataclass(frozen=True)
class FieldProblem:
    """One wrong field: its name, the value as text, and what would be right."""

    field: str
    message: str
    value: str = ""


def field_problem(field: str, message: str, value: object) -> FieldProblem:
    """A problem with the value shown short, printable and on one line."""
    return FieldProblem(field, message, "nothing" if value is None else shown(value))


def shown(value: object) -> str:
    """A value as it may stand in a message: short, printable, on one line."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of thousands of digits has no text
        text = f"a very large {type(value).__name__}"
    return text if len(text) <= 100 else text[:97] + "..."


class BrokerError(Exception):
    """Anything a broker operation can raise. Catch the subclasses: each says what to do next."""

    kind = "broker-error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ConfigurationError(BrokerError):
    """Settings are missing or wrong. Stop, mend the named settings, start again: waiting doesn't help."""

    kind = "configuration"


class PaperLiveMismatch(ConfigurationError):
    """Declared mode, port and account don't agree on paper or live. Nothing trades until it is mended."""

    kind = "paper-live-mismatch"


class LiveLocked(BrokerError):
    """Live trading is locked until a verification of this gateway has passed. Verify it, then call again.

    For a deployed service `make verify STACK=...`, for a program of one's own `python -m broker verify`.
    """

    kind = "live-locked"


class Halted(BrokerError):
    """The kill switch is on, and nothing was sent. Don't retry: a person decides when to resume.

    `since` is when it was switched on (UTC), `by` who did, `reason` why.
    """

    kind = "halted"

    def __init__(self, since: datetime | None = None, by: str = "", reason: str = "") -> None:
        who = f" by {by}" if by else ""
        super().__init__(f"trading is halted{who}" + (f": {reason}" if reason else ""))
        self.since = since
        self.by = by
        self.reason = reason


class LimitExceeded(BrokerError):
    """A limit of ours refuses the order, and nothing was sent. Make it smaller, or have the limit changed."""

    kind = "limit-exceeded"

    def __init__(self, limit: str, value: object, allowed: object) -> None:
        super().__init__(f"the limit {limit} allows {allowed}, and the order would make it {value}")
        self.limit = limit
        self.value = value
        self.allowed = allowed


class NotConnected(BrokerError):
    """The broker can't be reached, and nothing was sent. Wait and call again: reconnecting goes on by itself.

    `since` is when the link was lost or found lost (UTC), `doing` what is being done about it,
    `retry_after` the seconds after which another call makes sense.
    """

    kind = "not-connected"

    def __init__(
        self, reason: str, *, since: datetime | None = None, doing: str = "", retry_after: float = 5.0
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.since = since or datetime.now(UTC)
        self.doing = doing
        self.retry_after = retry_after


class StandBy(NotConnected):
    """Another process holds the connection and is to hand over. Call again after `retry_after` seconds."""

    kind = "stand-by"


class AccountNotRunning(NotConnected):
    """The account's own gateway isn't running, and nothing was sent. `doing` says what to do.

    `account_status` and `account_reason` are the account's, as its status has them; `since` is when it
    came to be so.
    """

    kind = "account-not-running"

    def __init__(
        self, message: str, account_status: str, account_reason: str, since: datetime, doing: str
    ) -> None:
        super().__init__(message, since=since, doing=doing, retry_after=10)
        self.account_status = account_status
        self.account_reason = account_reason


class NotAuthenticated(NotConnected):
    """The login was refused, or isn't done yet. A person has to look: retrying can lock the account."""

    kind = "not-authenticated"


class SecondFactorWaiting(NotAuthenticated):
    """The login waits for a person to confirm it on a phone. Alert them; don't restart the gateway."""

    kind = "second-factor-waiting"


class CertificateMismatch(NotConnected):
    """Nothing was sent: the gateway shows another certificate. `python -m broker accept-certificate` helps.

    Compare its fingerprint with what the machine itself says. If it is the gateway's, made anew, accept it
    by that command; else somebody has taken its address.
    """

    kind = "certificate-mismatch"


class JournalUnavailable(NotConnected):
    """The order journal can't be written, so nothing was sent. Call again with the same client order id."""

    kind = "journal-unavailable"


class RateLimited(BrokerError):
    """The broker's limit is used up, and nothing was done. Call again after `retry_after` seconds."""

    kind = "rate-limited"

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidRequest(BrokerError):
    """The call is wrong and nothing was sent. Mend the fields in `problems`; repeating it can't help."""

    kind = "invalid-request"

    def __init__(self, problems: list[FieldProblem]) -> None:
        super().__init__("; ".join(f"{p.field}: {p.message} (got {p.value})" for p in problems))
        self.problems = problems


class UnknownSymbol(InvalidRequest):
    """The broker knows no such symbol. Mend the symbol; class shares are written BRK.B."""

    kind = "unknown-symbol"

    def __init__(self, symbol: str, message: str = "the broker knows no such symbol") -> None:
        super().__init__([FieldProblem("symbol", message, symbol[:100])])
        self.symbol = symbol


class AmbiguousContract(InvalidRequest):
    """Several instruments carry this symbol. Choose one of `candidates`: none was guessed."""

    kind = "ambiguous-contract"

    def __init__(self, symbol: str, candidates: list[str]) -> None:
        listed = ", ".join(candidates[:10])
        super().__init__([FieldProblem("symbol", f"several instruments match: {listed}", symbol[:100])])
        self.symbol = symbol
        self.candidates = candidates


class UnsupportedOperation(BrokerError):
    """This broker can't do that (see its `capabilities`). Use another way; waiting doesn't help."""

    kind = "unsupported-operation"


class OrderNotFound(BrokerError):
    """No order of this account has that id. Check the id: it is `Order.id`, not the broker's number."""

    kind = "order-not-found"


class OrderNotCancellable(BrokerError):
    """The order is already final, so there is nothing to cancel. Read it: `order` holds its last state."""

    kind = "order-not-cancellable"

    def __init__(self, message: str, order: Order | None = None) -> None:
        super().__init__(message)
        self.order = order


class OrderNotReplaceable(BrokerError):
    """The order is final, or the broker refused the change: it works on as `order` shows. Read it."""

    kind = "order-not-replaceable"

    def __init__(self, message: str, order: Order | None = None) -> None:
        super().__init__(message)
        self.order = order


class DuplicateClientOrderId(BrokerError):
    """This client order id names another order already. Nothing was sent: use a new id for a new order."""

    kind = "duplicate-client-order-id"

    def __init__(self, client_order_id: str, existing: Order) -> None:
        super().__init__(
            f"client_order_id {client_order_id!r} already names another order: "
            f"{existing.side} {existing.qty:g} {existing.symbol} ({existing.order_type})"
        )
        self.client_order_id = client_order_id
        self.existing = existing


class OrderRejected(BrokerError):
    """The broker said no: the order doesn't exist in its book. Read `reason` and `code`; change the order."""

    kind = "order-rejected"

    def __init__(self, reason: str, *, code: int | str | None = None, order: Order | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.code = code
        self.order = order


class InsufficientFunds(OrderRejected):
    """The account can't pay for the order. Make it smaller or add money; repeating it can't help."""

    kind = "insufficient-funds"


class MarketClosed(OrderRejected):
    """The market is closed and the broker doesn't hold the order. Send it again when `clock()` says open."""

    kind = "market-closed"


class OrderOutcomeUnknown(BrokerError):
    """The order left, and no answer says what became of it. Don't send it again under another id.

    Read `order.id` later (or repeat the call with the same client order id): it is looked up
    at the broker until that settles it. If it doesn't, a person looks at the account.
    """

    kind = "order-outcome-unknown"

    def __init__(self, message: str, order: Order) -> None:
        super().__init__(message)
        self.order = order


class MarketDataUnavailable(BrokerError):
    """The broker gives no price: no subscription, a competing session, no trade yet. `code` tells which."""

    kind = "market-data-unavailable"

    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class BrokerFailure(BrokerError):
    """The broker's answer makes no sense. Nothing was changed; report it, then try again."""

    kind = "broker-failure"
