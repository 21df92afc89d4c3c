"""Requests to Alpaca: each is sent once, has a deadline, and its failure gets its right name.

alpaca-py repeats a request on 429 and 504, up to four times, offers no way to turn that off
(`retry_attempts=0` is ignored), and waits for answers for ever. A repeated POST is a second order
or, with a client order id, a refusal that hides a live one. So `trading_client` is the one place
that makes a client: without retries, with deadlines, or not at all.
"""

from __future__ import annotations

import functools
import json
import ssl
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, TypeVar

from broker.errors import BrokerFailure, NotAuthenticated, NotConnected, RateLimited

if TYPE_CHECKING:
    from alpaca.trading.client import TradingClient

T = TypeVar("T")

#: seconds to connect and to read; an order that takes longer is looked up
TIMEOUT = (5.0, 15.0)
#: connections kept open: calls from that many threads at once need no new one
POOL = 40
#: of the minute's requests, the share and the most that are kept for cancels and look-ups of orders sent
RESERVED_SHARE, RESERVED_MOST = 20, 10
#: seconds to wait after a 429 that doesn't say how long: Alpaca counts by the minute
WINDOW = 60.0


class Refused(BrokerFailure):
    """Alpaca said no: a 4xx in Alpaca's own form, with its code and its words."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class NeverLeft(NotConnected):
    """No connection came about, so nothing was sent."""


def trading_client(api_key: str, secret_key: str, paper: bool, endpoint: str) -> TradingClient:
    """The library's client with its retries off. Raises `BrokerFailure` if they can't be turned off."""
    from alpaca.trading.client import TradingClient
    from requests.adapters import HTTPAdapter

    client = TradingClient(api_key, secret_key, paper=paper, url_override=endpoint or None)
    if not isinstance(getattr(client, "_retry", None), int) or not hasattr(client, "_session"):
        raise BrokerFailure("this version of alpaca-py hides its retries: orders could be sent twice")
    client._retry = 0
    session: Any = client._session
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(pool_maxsize=POOL, max_retries=0))
    session.request = functools.partial(session.request, timeout=TIMEOUT)
    return client


class Wire:
    """One API key's requests. Safe to use from any thread."""

    def __init__(self, client: TradingClient) -> None:
        self.client: Any = client
        self.since = datetime.now(UTC)
        self.reason = "connect() was not called"
        self.proved_at: datetime | None = None
        self.open = False
        self._allowance = Allowance()
        hooks: Any = client._session.hooks
        hooks["response"].append(lambda response, *_, **__: self._allowance.read(response.headers))

    def ask(self, request: Callable[[], T], *, missing: bool = False, urgent: bool = False) -> T | None:
        """One request, once. `missing`: a 404 is an answer, None. `urgent`: may use what is kept back.

        Raises `RateLimited`, `NotAuthenticated`, `NeverLeft`: nothing was done. `Refused`: Alpaca said
        no. `NotConnected`, `BrokerFailure`: it may have been done.
        """
        import requests
        from alpaca.common.exceptions import APIError

        if not self.open:
            raise NeverLeft("the broker isn't connected", since=self.since, doing="call connect()")
        if not urgent:
            self._allowance.check()
        try:
            answer = request()
        except APIError as error:
            self._up()
            self._refuse(error, missing)
            return None
        except (requests.RequestException, OSError) as failure:
            raise self._down(failure) from failure
        except (ValueError, TypeError, KeyError, AttributeError) as failure:
            # A body that isn't JSON, or not what the model expects.
            raise BrokerFailure(f"Alpaca's answer makes no sense: {type(failure).__name__}") from failure
        self._up()
        return answer

    def _up(self) -> None:
        self.proved_at = datetime.now(UTC)
        if self.reason:
            self.since, self.reason = self.proved_at, ""

    def _down(self, failure: Exception) -> NotConnected:
        said = f"Alpaca can't be reached: {type(failure).__name__}"
        if not self.reason:
            self.since = datetime.now(UTC)
        self.reason = said
        kind = NeverLeft if _never_left(failure) else NotConnected
        return kind(said, since=self.since, doing="each call tries anew")

    def _refuse(self, error: Any, missing: bool) -> None:
        """Raise what an error answer means; a 404 that may be is none."""
        status = int(error.status_code or 0)
        said = _said(error)
        message, code = (str(said.get("message", "")), str(said.get("code", status))) if said else ("", "")
        if status == 401 or (status == 403 and message.lower().startswith("forbidden")):
            self.reason = f"Alpaca refuses the API key: {message or status}"
            raise NotAuthenticated(self.reason, since=self.since, doing="nothing: a person mends the key")
        if status == 429:
            headers = error.response.headers if error.response is not None else {}
            raise RateLimited("Alpaca's request limit is used up", retry_after(headers))
        if status >= 500 or status == 408:
            raise NotConnected(f"Alpaca answered {status}", since=self.since, doing="each call tries anew")
        if not message:  # without Alpaca's own words it was something on the way that answered
            raise BrokerFailure(f"Alpaca's answer makes no sense: {status} without a message")
        if status == 404 and missing:
            return
        raise Refused(message, code, status)


class Allowance:
    """What is left of the minute's requests, as the headers of answers tell it.

    Below a reserve, requests that can wait are refused here, so that a cancel never finds the
    minute used up by a burst of orders. Nothing is queued.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._left: int | None = None
        self._limit = 0
        self._renewed = 0.0

    def read(self, headers: Any) -> None:
        """Take over X-RateLimit-Limit, -Remaining and -Reset (seconds since the epoch)."""
        try:
            limit, left = int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Remaining"])
        except (KeyError, ValueError):
            return
        with self._lock:
            self._limit, self._left = limit, left
            self._renewed = self._now() + retry_after(headers)

    def check(self) -> None:
        """Raise `RateLimited` if what is left is kept for cancels; else count one request."""
        with self._lock:
            if self._left is None or self._now() >= self._renewed:
                return
            if self._left <= min(RESERVED_MOST, self._limit // RESERVED_SHARE):
                wait = round(self._renewed - self._now(), 1)
                raise RateLimited("the rest of the minute's requests is kept for cancels", wait)
            self._left -= 1


def retry_after(headers: Any) -> float:
    """Seconds until requests are let through again, by the server's own clock where it tells."""
    told = str(headers.get("Retry-After", ""))
    if told.isdigit():
        return float(told)
    reset = str(headers.get("X-RateLimit-Reset", ""))
    if not reset.isdigit():
        return WINDOW
    try:
        now = parsedate_to_datetime(headers["Date"]).timestamp()
    except (KeyError, TypeError, ValueError):
        now = time.time()
    return min(max(float(reset) - now, 1.0), WINDOW)


def _said(error: Any) -> dict[str, Any]:
    """`{"code": 40310000, "message": "insufficient buying power"}`, or nothing if it isn't that."""
    try:
        said = json.loads(str(error))
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _never_left(failure: Exception) -> bool:
    """Whether no connection came about: refused, no such host, a connect timeout, a certificate not trusted.

    What fails later (a reset, a read timeout, an error status) may have been carried out.
    """
    import requests
    from urllib3.exceptions import NewConnectionError

    if isinstance(failure, requests.ConnectTimeout):
        return True
    reason = getattr(failure.args[0] if failure.args else None, "reason", None)
    if isinstance(reason, NewConnectionError):
        return True
    return isinstance(reason.args[0] if reason and reason.args else None, ssl.SSLCertVerificationError)
