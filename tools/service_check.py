"""Waits until the local stack really works: the service is ready and its broker connected."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# A gateway logs in within seconds; its first start in a cold page cache takes the longest.
SECONDS_TO_CONNECT = 90.0
PAUSE = 0.25
# A unit that failed is started again by its machine, perhaps.
SECONDS_OF_HOPE = 10.0


@dataclass(frozen=True)
class Health:
    """What the service says of its broker; `ok` is whether the broker can be reached."""

    ok: bool
    says: str


def get(url: str, token: str = "", timeout: float = 10) -> Any:
    """A JSON document. Raises OSError, which an HTTP error status is too."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    request = urllib.request.Request(url, headers=headers)
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.load(answer)


def health(url: str, token: str, connection: str = "default") -> Health:
    """Ask the service how the broker of a connection is."""
    try:
        get(f"{url}/health")
        told = get(f"{url}/api/v1/connections/{connection}/health", token)
    except urllib.error.HTTPError as error:
        return Health(False, f"the service answers {error.code}: {reason_in(error)}")
    except OSError as error:
        return Health(False, f"the service doesn't answer: {error}")
    details = told.get("details") or {}
    parts = [told.get("state"), details.get("account"), told.get("reason"), told.get("doing")]
    return Health(bool(told.get("ok")), ", ".join(str(part) for part in parts if part))


def reason_in(error: urllib.error.HTTPError) -> str:
    """What a problem document says."""
    try:
        document = json.load(error)
    except ValueError:
        return str(error.reason)
    return str(document.get("detail") or document.get("title") or error.reason)


def wait(
    url: str,
    token: str,
    seconds: float = SECONDS_TO_CONNECT,
    clock: Callable[[], float] = time.monotonic,
    hopeless: Callable[[], bool] = lambda: False,
) -> Health:
    """Ask until the broker is connected, or for so many seconds; the last answer.

    Gives up sooner where it has been `hopeless` for a while: then waiting doesn't help.
    """
    until = clock() + seconds
    hoped = clock()
    while True:
        latest = health(url, token)
        if not hopeless():
            hoped = clock()
        if latest.ok or clock() > min(until, hoped + SECONDS_OF_HOPE):
            return latest
        time.sleep(PAUSE)
