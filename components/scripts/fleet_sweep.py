"""Deletes a stack's droplets that its service made: `python3 fleet_sweep.py check|sweep`.

Environment: SWEEP_STACK, DIGITALOCEAN_TOKEN; DIGITALOCEAN_API_URL where it isn't DigitalOcean's. Only
droplets are touched that carry both `stack:<SWEEP_STACK>` and `manager:service`, and each one's tags are
read again right before it is deleted. A list may lag a creation by seconds, so the sweep ends when two
passes in a row found none. `check` only says whether a sweep could be done.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from typing import Any

DIGITALOCEAN = "https://api.digitalocean.com"
PAGE = 200
ATTEMPTS = 6
EMPTY_PASSES = 2
MOST_PASSES = 20
# 422: the droplet is locked by an action under way.
PASSING = (422, 429, 500, 502, 503, 504)


class SweepFailed(Exception):
    """Droplets may be left, and are billed; the message says why. `destroy` can be repeated."""


class DigitalOcean:
    """The part of API v2 that a sweep needs."""

    def __init__(self, url: str, token: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self._url = url.rstrip("/")
        self._token = token
        self._sleep = sleep

    def droplets(self, tag: str) -> Iterator[dict[str, Any]]:
        """All droplets with a tag, page by page."""
        page = 1
        while True:
            query = urllib.parse.urlencode({"tag_name": tag, "per_page": PAGE, "page": page})
            found = self._call("GET", f"/v2/droplets?{query}") or {}
            yield from found.get("droplets", [])
            if not (found.get("links", {}).get("pages") or {}).get("next"):
                return
            page += 1

    def droplet(self, number: int) -> dict[str, Any] | None:
        """One droplet, or None if there is none."""
        found = self._call("GET", f"/v2/droplets/{number}")
        return found["droplet"] if found else None

    def delete(self, number: int) -> None:
        """Deletes a droplet; that it is gone already is success."""
        self._call("DELETE", f"/v2/droplets/{number}")

    def _call(self, method: str, path: str) -> dict[str, Any] | None:
        """The answer's JSON; {} for an empty one, None for 404. Raises SweepFailed."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        reason = "no answer"
        for attempt in range(ATTEMPTS):
            request = urllib.request.Request(self._url + path, headers=headers, method=method)  # noqa: S310
            pause = 0.5 * 2**attempt
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
                    body = answer.read()
                    found: dict[str, Any] = json.loads(body) if body else {}
                    return found
            except urllib.error.HTTPError as error:
                if error.code == 404:
                    return None
                reason = f"{error.code} {error.reason}"
                if error.code not in PASSING:
                    break
                pause = max(pause, float(error.headers.get("retry-after") or 0))
            except OSError as error:
                reason = str(error)
            if attempt < ATTEMPTS - 1:
                self._sleep(pause)
        raise SweepFailed(f"{method} {path}: {reason}")


def belongs(droplet: Mapping[str, Any], stack: str) -> bool:
    """Whether the service of this stack made a droplet, by its tags."""
    return {f"stack:{stack}", "manager:service"} <= set(droplet.get("tags") or [])


def sweep(api: DigitalOcean, stack: str, say: Callable[[str], None], pause: Callable[[], None]) -> int:
    """Deletes the stack's run-time droplets, and returns how many. Raises SweepFailed."""
    deleted: set[int] = set()
    empty = 0
    for _ in range(MOST_PASSES):
        found = [droplet for droplet in api.droplets(f"stack:{stack}") if belongs(droplet, stack)]
        for droplet in found:
            number = int(droplet["id"])
            current = api.droplet(number)
            if current is None or not belongs(current, stack):
                continue
            api.delete(number)
            if number not in deleted:
                say(f"deleted droplet {number} ({current.get('name')})")
            deleted.add(number)
        empty = 0 if found else empty + 1
        if empty == EMPTY_PASSES:
            return len(deleted)
        pause()
    raise SweepFailed(f"droplets of stack {stack} are still listed after {MOST_PASSES} passes")


def main(arguments: list[str], environment: Mapping[str, str]) -> int:
    """The command. Prints what was deleted, or why nothing can be."""
    stack, token = environment.get("SWEEP_STACK", ""), environment.get("DIGITALOCEAN_TOKEN", "")
    if arguments not in (["check"], ["sweep"]) or not stack:
        print("usage: SWEEP_STACK=<stack> fleet_sweep.py check|sweep", file=sys.stderr)
        return 2
    if not token:
        print(
            "DIGITALOCEAN_TOKEN isn't in the environment. Without it, `destroy` can't remove the droplets "
            "that the service makes at run time; export it and run again.",
            file=sys.stderr,
        )
        return 1
    if arguments == ["check"]:
        print(f"droplets that the service of stack {stack} makes are removed at `destroy`")
        return 0
    api = DigitalOcean(environment.get("DIGITALOCEAN_API_URL") or DIGITALOCEAN, token)
    try:
        count = sweep(api, stack, print, lambda: time.sleep(1))
    except SweepFailed as error:
        print(f"{error}. Droplets may be left: repeat `destroy`.", file=sys.stderr)
        return 1
    print(f"{count} run-time droplets of stack {stack} were deleted")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
