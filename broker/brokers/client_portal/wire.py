"""One request to the gateway over ibind, sent exactly once.

This is the one place where ibind's habits are undone. It repeats a POST that timed out three times
(so an order would leave four times), on `/reply` too; it repeats after a broken connection; its
order lock is shared by all clients of a process; it verifies no certificate unless told to; it
registers signal handlers. None of that here.
"""

from __future__ import annotations

import email.utils
import ssl
import threading
from datetime import UTC, datetime
from typing import Any

import requests
from ibind import IbkrClient
from ibind.base.rest_client import RestClient
from ibind.support.errors import ExternalBrokerError
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from broker.brokers.client_portal.tls import Adapter, CertificateChanged, HandshakeFailed
from broker.brokers.link import State

TOKEN_HEADER = "X-Gateway-Token"  # noqa: S105 - a header's name
_UNSENT = (NewConnectionError, ConnectTimeoutError)


class Unreachable(Exception):
    """No connection was made, so nothing left. `state`: what the link is then."""

    def __init__(self, reason: str, state: str = State.DISCONNECTED) -> None:
        super().__init__(reason)
        self.state = state


class Silence(Exception):
    """The request may have left, and no whole answer came."""


class Answered(ExternalBrokerError):  # type: ignore[misc]
    """The gateway answered with an error. `retry_after`: seconds, where it said so."""

    def __init__(self, status: int, text: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {text}", status_code=status)
        self.status = status
        self.text = text
        self.retry_after = retry_after


class Wire(IbkrClient):  # type: ignore[misc]
    """ibind's client without its retries. Calls raise `Answered`, `Silence` and `Unreachable`."""

    def __init__(self, url: str, context: ssl.SSLContext, *, token: str = "", timeout: float = 10.0) -> None:
        """`url`: of the API, such as `https://10.0.0.5:5000/v1/api`; `context`: see `tls.context_for`."""
        self.context = context
        self._token = token
        super().__init__(
            account_id=None,
            url=url,
            # The context decides; requests would otherwise load its own bundle of CAs into it.
            cacert=False,
            timeout=timeout,
            max_retries=0,
            use_session=True,
            auto_recreate_session=False,
            auto_register_shutdown=False,
            log_responses=False,
            use_oauth=False,
        )
        # ibind's is an attribute of the class: one slow gateway would hold up all others.
        self.order_submission_lock = threading.Lock()

    def make_session(self) -> None:
        """A session that takes no proxy, no certificates and no credentials from the environment."""
        self._session = self._made()

    def _made(self) -> requests.Session:
        made = requests.Session()
        made.trust_env = False
        made.mount("https://", Adapter(self.context))
        return made

    def close_session(self) -> None:
        """Close its connections. ibind would go on without a session, and take proxies from outside."""
        self._session.close()

    def headers(self) -> dict[str, str]:
        """What proves us to a proxy in front of the gateway; on the websocket too."""
        return {TOKEN_HEADER: self._token} if self._token else {}

    def _get_headers(self, request_method: str, request_url: str) -> dict[str, str]:
        return {"User-Agent": "ibkr-broker"} | self.headers()

    def _request(
        self,
        method: str,
        endpoint: str,
        base_url: str | None = None,
        extra_headers: dict[str, str] | None = None,
        log: bool = True,
        **kwargs: Any,
    ) -> Any:
        try:
            # Not IbkrClient's, which takes the status off "no bridge". A redirect would turn POST into GET.
            return RestClient._request(
                self, method, endpoint, base_url, extra_headers, False, allow_redirects=False, **kwargs
            )
        except Answered:
            raise
        except TimeoutError:
            raise Silence(f"no answer within {self._timeout:g} s") from None
        except ExternalBrokerError as failure:
            cause = failure.__cause__
            away = _never_left(cause)
            if away is not None:
                raise away from None
            raise Silence(f"the connection broke: {type(cause).__name__}") from None

    def _process_response(self, response: requests.Response, result: Any) -> Any:
        if response.status_code >= 400:
            raise Answered(response.status_code, _text(response), _retry_after(response))
        try:
            result.data = response.json()
        except ValueError:
            raise Answered(response.status_code, "the answer isn't JSON") from None
        return result


class OrderWire(Wire):
    """For orders: a connection of its own for each request.

    A kept connection may have been closed by the other side a moment ago; a request on it fails in a
    way that can't be told from one that arrived. A new one either opens or nothing has left.
    """

    def make_session(self) -> None:
        """None is kept."""

    def close_session(self) -> None:
        """None is kept."""

    @property
    def _session(self) -> requests.Session:  # type: ignore[override]
        made = self._made()
        made.headers["Connection"] = "close"
        return made


def _never_left(cause: BaseException | None) -> Unreachable | None:
    """What to raise if it is certain that nothing was sent; None if it may have been."""
    inner = cause.args[0] if cause is not None and cause.args else None
    reason = getattr(inner, "reason", inner)  # of urllib3's MaxRetryError
    failed = reason.args[0] if isinstance(reason, Exception) and reason.args else None
    if isinstance(failed, CertificateChanged):
        return Unreachable(str(failed.args[0]), State.CERTIFICATE_CHANGED)
    if isinstance(failed, HandshakeFailed):
        return Unreachable(str(failed.args[0]))
    if isinstance(cause, requests.exceptions.ConnectTimeout) or isinstance(reason, _UNSENT):
        return Unreachable("the gateway can't be reached")
    return None


def _text(response: requests.Response) -> str:
    """`{"error": "Bad Request: no bridge", "statusCode": 400}` -> `Bad Request: no bridge`."""
    try:
        said = response.json()
    except ValueError:
        return response.text.strip()[:500]
    error = said.get("error") or said.get("message") if isinstance(said, dict) else None
    return str(error or said)[:500]


def _retry_after(response: requests.Response) -> float | None:
    """Seconds: `Retry-After: 120`, or a date."""
    text = response.headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        moment = email.utils.parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.now(UTC)).total_seconds())
