"""DigitalOcean's API as the fleet needs it, on pydo: typed answers, typed errors, and a request budget.

Every call says for whom it is made: a user who waits, or background work. The budget keeps a share of
DigitalOcean's limits for users and never exceeds them; what doesn't fit is refused here, at once, with the
time to come back. Nothing is retried: pydo repeats a create on a 503 by default, and then there are two
droplets. An error says what is known: `OutcomeUnknown` that the thing may have been done.
"""

from __future__ import annotations

import enum
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from broker.fleet.spec import DropletSpec

PER_PAGE = 200
HOUR, MINUTE = 3600.0, 60.0

#: words of DigitalOcean's refusals (see localcloud/digitalocean/checks.py for where they were seen)
_QUOTA = ("droplet limit",)
_LOCKED = ("pending event", "is locked", "currently locked")


class DigitalOceanError(Exception):
    """A call failed. `reason` is a word for machines, the message says what a person can do."""

    reason = "digitalocean_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Throttled(DigitalOceanError):
    """Too many requests, by our budget or theirs; nothing was done. Come back after `wait` seconds."""

    reason = "digitalocean_busy"

    def __init__(self, wait: float) -> None:
        super().__init__(f"DigitalOcean's request limit is reached: it goes on in {wait:.0f} s")
        self.wait = wait


class Locked(DigitalOceanError):
    """Another action of the droplet is running; nothing was done. Try again later."""

    reason = "droplet_locked"


class NotFound(DigitalOceanError):
    """There is no such thing, or not yet: reads can lag a create."""

    reason = "not_found"


class QuotaReached(DigitalOceanError):
    """The team has as many droplets as it may have; nothing was done."""

    reason = "quota_reached"


class Refused(DigitalOceanError):
    """The request can't be carried out as it is; nothing was done, and repeating it doesn't help."""

    reason = "digitalocean_refused"


class Unauthorized(Refused):
    """The token isn't (or is no longer) good for this."""

    reason = "digitalocean_token"


class Unavailable(DigitalOceanError):
    """A read failed: DigitalOcean is away or slow. Try again later."""

    reason = "digitalocean_away"


class OutcomeUnknown(DigitalOceanError):
    """A change was sent, and no clear answer came: look whether it was made before doing it again."""

    reason = "outcome_unknown"


class Priority(enum.IntEnum):
    """Who waits for a call."""

    USER = 0
    BACKGROUND = 1


@dataclass(frozen=True, slots=True)
class Droplet:
    """A droplet as a list or a read shows it. `address` is its public IPv4 address, empty at first."""

    id: int
    name: str
    status: str
    locked: bool
    address: str
    region: str
    size: str
    tags: tuple[str, ...]
    created_at: str

    @classmethod
    def parse(cls, document: dict[str, Any]) -> Droplet:
        """From the API's document."""
        v4 = (document.get("networks") or {}).get("v4") or []
        public = [n["ip_address"] for n in v4 if n.get("type") == "public"]
        return cls(
            id=int(document["id"]),
            name=document["name"],
            status=document["status"],
            locked=bool(document.get("locked")),
            address=public[0] if public else "",
            region=(document.get("region") or {}).get("slug", ""),
            size=document.get("size_slug", ""),
            tags=tuple(document.get("tags") or ()),
            created_at=document.get("created_at", ""),
        )

    def tag(self, key: str) -> str:
        """The value of the tag `key:value`, or an empty text."""
        return next((t.partition(":")[2] for t in self.tags if t.startswith(f"{key}:")), "")


@dataclass(frozen=True, slots=True)
class Room:
    """What a check before creates found: `problem` for the image, size or region, and droplets left."""

    problem: str
    reason: str
    left: int
    price_monthly: float | None = None


class Droplets(Protocol):
    """What the reconciler needs of DigitalOcean. Everything raises DigitalOceanError."""

    def list_by_tag(self, tag: str, priority: Priority) -> list[Droplet]:
        """All droplets with a tag; one call for 200."""
        ...

    def find_by_name(self, name: str, priority: Priority) -> list[Droplet]:
        """Droplets of exactly that name."""
        ...

    def get(self, droplet_id: int, priority: Priority) -> Droplet:
        """Raises NotFound, also shortly after a create."""
        ...

    def create(self, spec: DropletSpec, priority: Priority) -> Droplet:
        """Sent once. Raises OutcomeUnknown when it may have been made."""
        ...

    def delete(self, droplet_id: int, priority: Priority) -> None:
        """Destroys it; one that is gone is fine. Raises Locked."""
        ...

    def act(self, droplet_id: int, kind: str, priority: Priority) -> int:
        """Starts an action (`power_on`, `shutdown`, `power_off`); its id. Raises Locked, NotFound."""
        ...

    def action_status(self, droplet_id: int, action_id: int, priority: Priority) -> str:
        """`in-progress`, `completed` or `errored`. Raises NotFound."""
        ...

    def room(self, size: str, region: str, image: str, priority: Priority) -> Room:
        """Whether a droplet could be made, and how many."""
        ...


class Budget:
    """DigitalOcean's limits as two sliding windows; background work may use a part of each.

    `remaining`, from the answers' headers, tells of other programs that use the same token. Counted before
    a call is sent, and also when it fails, so the limit isn't exceeded whatever happens.
    """

    def __init__(
        self,
        per_hour: int = 5000,
        per_minute: int = 250,
        background_share: float = 0.8,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limits = ((HOUR, per_hour), (MINUTE, per_minute))
        self._share = background_share
        self._clock = clock
        self._lock = threading.Lock()
        self._times: deque[float] = deque()
        self._closed_until = 0.0
        self._theirs: tuple[int, float] | None = None

    def take(self, priority: Priority) -> None:
        """Counts one call. Raises Throttled, and then nothing was counted."""
        with self._lock:
            now = self._clock()
            while self._times and self._times[0] <= now - HOUR:
                self._times.popleft()
            if now < self._closed_until:
                raise Throttled(self._closed_until - now)
            share = 1.0 if priority is Priority.USER else self._share
            for window, limit in self._limits:
                allowed = int(limit * share)
                if len(self._times) >= allowed and self._times[-allowed] > now - window:
                    raise Throttled(self._times[-allowed] + window - now)
            if self._theirs is not None:
                left, until = self._theirs
                kept_back = int(self._limits[0][1] * (1 - share))
                if now < until and left <= kept_back:
                    raise Throttled(min(MINUTE, until - now))
            self._times.append(now)
            if self._theirs is not None:
                self._theirs = (self._theirs[0] - 1, self._theirs[1])

    def told(self, remaining: str | None) -> None:
        """An answer's `ratelimit-remaining`; believed for a minute."""
        if remaining is not None and remaining.isdigit():
            with self._lock:
                self._theirs = (int(remaining), self._clock() + MINUTE)

    def refused(self, retry_after: str | None) -> float:
        """A 429 came: no call until then; the seconds to wait. The hourly limit names none: a minute."""
        wait = float(retry_after) if retry_after and retry_after.isdigit() else MINUTE
        with self._lock:
            self._closed_until = max(self._closed_until, self._clock() + wait)
        return wait

    @property
    def left(self) -> int:
        """Calls left in this hour."""
        with self._lock:
            now = self._clock()
            ours = self._limits[0][1] - sum(1 for t in self._times if t > now - HOUR)
            if self._theirs is not None and now < self._theirs[1]:
                return max(0, min(ours, self._theirs[0]))
            return max(0, ours)

    def interval(self, calls: int, least: float) -> float:
        """Seconds between passes of `calls` calls each, `least` or more, so that background work keeps to
        half of its share and the rest is left for changes."""
        hour, minute = (limit * self._share / 2 for _window, limit in self._limits)
        return max(least, HOUR * calls / hour, MINUTE * calls / minute)


class PydoDroplets:
    """`Droplets` on pydo. Blocking; usable from several threads."""

    def __init__(
        self,
        token: str,
        endpoint: str = "https://api.digitalocean.com",
        budget: Budget | None = None,
        timeout: int = 20,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`timeout` in seconds, of connecting and of reading. Opens nothing."""
        from pydo import Client

        self.budget = budget or Budget()
        self._client = Client(token=token, endpoint=endpoint, retry_total=0, timeout=timeout)
        self._options: dict[str, Any] = {
            "connection_timeout": timeout,
            "read_timeout": timeout,
            "logging_enable": False,
            # A create has the bearer token and an enrolment's in it, and is sent once, and nowhere else.
            "permit_redirects": False,
        }
        if endpoint.startswith("http://"):
            self._options["enforce_https"] = False
        self._clock = clock
        self._sleep = sleep
        self._catalogue: tuple[float, dict[str, Any]] = (0.0, {})
        self._lock = threading.Lock()

    def list_by_tag(self, tag: str, priority: Priority) -> list[Droplet]:
        """See Droplets."""
        return [Droplet.parse(d) for d in self._pages("droplets", priority, tag_name=tag)]

    def find_by_name(self, name: str, priority: Priority) -> list[Droplet]:
        """See Droplets."""
        return [Droplet.parse(d) for d in self._pages("droplets", priority, name=name)]

    def get(self, droplet_id: int, priority: Priority) -> Droplet:
        """See Droplets."""
        found = self._call(self._client.droplets.get, priority, droplet_id)
        return Droplet.parse(found["droplet"])

    def create(self, spec: DropletSpec, priority: Priority) -> Droplet:
        """See Droplets."""
        body = {
            "name": spec.name,
            "region": spec.region,
            "size": spec.size,
            "image": spec.api_image,
            "tags": list(spec.tags),
            "user_data": spec.user_data,
            "ipv6": False,
            "monitoring": False,
        }
        made = self._call(self._client.droplets.create, priority, change=True, body=body)
        try:
            return Droplet.parse(made["droplet"])
        except (KeyError, TypeError, ValueError):
            raise OutcomeUnknown("DigitalOcean's answer to a create can't be read") from None

    def delete(self, droplet_id: int, priority: Priority) -> None:
        """See Droplets."""
        try:
            self._call(self._client.droplets.destroy, priority, droplet_id, change=True)
        except NotFound:
            return

    def act(self, droplet_id: int, kind: str, priority: Priority) -> int:
        """See Droplets."""
        body = {"type": kind}
        found = self._call(self._client.droplet_actions.post, priority, droplet_id, change=True, body=body)
        return int(found["action"]["id"])

    def action_status(self, droplet_id: int, action_id: int, priority: Priority) -> str:
        """See Droplets."""
        found = self._call(self._client.droplet_actions.get, priority, droplet_id, action_id)
        return str(found["action"]["status"])

    def room(self, size: str, region: str, image: str, priority: Priority) -> Room:
        """See Droplets. Sizes, regions and images are asked for once in ten minutes."""
        known = self._catalogue_now(priority)
        problem, reason = _catalogue_problem(known, self._image(known, image, priority), size, region, image)
        limit = int(self._call(self._client.account.get, priority)["account"]["droplet_limit"])
        first = self._call(self._client.droplets.list, priority, per_page=1)
        left = max(0, limit - int(first["meta"]["total"]))
        price = known["sizes"].get(size, {}).get("price_monthly")
        return Room(problem, reason, left, price)

    def _catalogue_now(self, priority: Priority) -> dict[str, Any]:
        with self._lock:
            until, known = self._catalogue
            if self._clock() < until:
                return known
            known = {
                "sizes": {s["slug"]: s for s in self._pages("sizes", priority)},
                "regions": {r["slug"]: r for r in self._pages("regions", priority)},
                "images": {},
            }
            self._catalogue = (self._clock() + 600, known)
            return known

    def _image(self, known: dict[str, Any], image: str, priority: Priority) -> dict[str, Any] | None:
        if image not in known["images"]:
            number = int(image) if image.isdigit() else image
            try:
                known["images"][image] = self._call(self._client.images.get, priority, number)["image"]
            except NotFound:
                return None
        found: dict[str, Any] = known["images"][image]
        return found

    def _pages(self, kind: str, priority: Priority, **query: Any) -> list[dict[str, Any]]:
        """All pages of a list. A droplet that moves between pages meanwhile is told once.

        More pages than a minute's calls are read in several minutes: half a list would be worth nothing.
        """
        found: dict[Any, dict[str, Any]] = {}
        page = 1
        while True:
            try:
                answer = self._call(
                    getattr(self._client, kind).list, priority, per_page=PER_PAGE, page=page, **query
                )
            except Throttled as busy:
                if page == 1 or busy.wait > MINUTE:
                    raise
                self._sleep(busy.wait)
                continue
            for item in answer.get(kind) or []:
                found[item.get("id") or item["slug"]] = item
            following = ((answer.get("links") or {}).get("pages") or {}).get("next")
            if not following:
                return list(found.values())
            page = int(parse_qs(urlsplit(following).query).get("page", [str(page + 1)])[0])

    def _call(
        self,
        operation: Callable[..., Any],
        priority: Priority,
        *arguments: Any,
        change: bool = False,
        **more: Any,
    ) -> Any:
        from azure.core.exceptions import AzureError, HttpResponseError

        self.budget.take(priority)

        def take_all(response: Any, document: Any, _headers: Any) -> tuple[int, Any, Any]:
            return response.http_response.status_code, document, response.http_response.headers

        try:
            status, document, headers = operation(*arguments, cls=take_all, **more, **self._options)
        except HttpResponseError as error:
            answer: Any = error.response
            if answer is None:
                raise _silent(change, type(error).__name__) from None
            raise self._error(answer.status_code, _document(answer), answer.headers, change) from None
        except (AzureError, OSError, ValueError) as error:
            # ValueError: an answer that isn't JSON. The text may hold the request, so it isn't passed on.
            raise _silent(change, type(error).__name__) from None
        self.budget.told(headers.get("ratelimit-remaining"))
        if status >= 300:
            raise self._error(status, document, headers, change)
        return document

    def _error(self, status: int, document: Any, headers: Any, change: bool) -> DigitalOceanError:
        words = str(document.get("message", "")) if isinstance(document, dict) else ""
        if status == 429:
            return Throttled(self.budget.refused(headers.get("retry-after")))
        self.budget.told(headers.get("ratelimit-remaining"))
        if status == 404:
            return NotFound("DigitalOcean has no such thing")
        if status in (401, 403):
            return Unauthorized(
                f"DigitalOcean answers {status}: is DIGITAL_OCEAN_API_KEY valid, and may it write droplets?"
            )
        if status == 422 and any(known in words.lower() for known in _LOCKED):
            return Locked("another action of this droplet is running")
        if status == 422 and any(known in words.lower() for known in _QUOTA):
            return QuotaReached(
                "the DigitalOcean team has reached its droplet limit: ask DigitalOcean for more"
            )
        if 400 <= status < 500 and status != 408:
            return Refused(f"DigitalOcean refuses it ({status}): {words[:200]}")
        return _silent(change, f"status {status}")


def _silent(change: bool, what: str) -> DigitalOceanError:
    if change:
        return OutcomeUnknown(f"DigitalOcean gave no clear answer ({what}): whether it was done is looked up")
    return Unavailable(f"DigitalOcean doesn't answer ({what})")


def _document(answer: Any) -> Any:
    try:
        return answer.json()
    except (ValueError, AttributeError):
        return {}


def _catalogue_problem(
    known: dict[str, Any], found: dict[str, Any] | None, size: str, region: str, image: str
) -> tuple[str, str]:
    """What is missing and a word for it; two empty texts if nothing."""
    sizes: dict[str, Any] = known["sizes"]
    place = known["regions"].get(region)
    if place is None or not place.get("available"):
        return f"DigitalOcean region {region!r} isn't available: choose another", "region_unavailable"
    if size not in sizes or not sizes[size].get("available"):
        return f"DigitalOcean size {size!r} isn't on offer: choose another", "size_unavailable"
    if region not in sizes[size].get("regions", ()):
        return f"DigitalOcean size {size!r} isn't on offer in {region!r}: choose another", "size_unavailable"
    if found is None:
        said = (
            f"DigitalOcean image {image!r} isn't to be had by this team: a private snapshot belongs to its "
            "owner's team; use ubuntu-24-04-x64 or a snapshot of your own"
        )
        return said, "image_unavailable"
    if region not in found.get("regions", ()):
        return (
            f"DigitalOcean image {image!r} isn't in region {region!r}: transfer it there",
            "image_unavailable",
        )
    if int(found.get("min_disk_size") or 0) > int(sizes[size].get("disk") or 0):
        return f"DigitalOcean image {image!r} needs a larger disk than {size!r} has", "size_unavailable"
    return "", ""


def passes_calls(droplets: int) -> int:
    """List calls of a pass over so many droplets: one for 200."""
    return max(1, -(-droplets // PER_PAGE))
