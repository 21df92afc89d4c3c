"""Makes an account's droplet: checks before, intent written first, sent once."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

from broker.fleet.account import Account, State
from broker.fleet.cloud_init import TemplateError
from broker.fleet.digitalocean import OutcomeUnknown, QuotaReached, Refused, Room, Throttled, Unauthorized
from broker.fleet.passes import Work
from broker.fleet.repository import NewEnrolment
from broker.fleet.spec import DropletSpec, Enrolment, SpecError, droplet_size, droplet_spec

_AGAIN = {"quota_reached": 300, "digitalocean_token": 600, "digitalocean_refused": 600}
"""Seconds until a create is tried again."""


class Creates:
    """Creates of one pass."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._settings = work.settings
        self._repository = work.repository
        self._droplets = work.droplets
        self._rooms: dict[tuple[str, str, str], Room] = {}
        self._created = 0

    def create(self, account: Account) -> None:
        """A droplet, unless there is one after all or no room; says what came of it. Raises Conflict."""
        given = self._settings.droplets
        size, region, image = droplet_size(account.environment, given), given.region, given.image  # type: ignore[arg-type]  # the database's check
        room = self._take_room(size, region, image)
        if room.problem:
            self._not_made(account, room.reason, 600, room.problem)
            return
        if room.left <= 0:
            self._not_made(account, "quota_reached", _AGAIN["quota_reached"])
            return
        if account.create_started_at is not None and self._made_after_all(account):
            return
        before = account
        account, enrolment = self._repository.begin_create(account)
        self._work.moved(before, account)
        try:
            spec = self._spec(account, enrolment)
            self._work.check_lease()
            droplet = self._droplets.create(spec, self._work.priority)
        except (SpecError, TemplateError) as error:
            self._not_made(account, "spec", 600, str(error))
        except Throttled as error:
            self._not_made(account, error.reason, error.wait)
        except (QuotaReached, Refused, Unauthorized) as error:
            self._not_made(account, error.reason, _AGAIN[error.reason], error.message)
        except OutcomeUnknown:
            self._work.change(account, status_reason="create_unknown", status_detail="")
        else:
            details = {"size": size, "image": image, "price_monthly": room.price_monthly}
            self._repository.adopt(account, droplet, json.dumps(details))

    def _made_after_all(self, account: Account) -> bool:
        """Whether a create that went unanswered made a droplet that the list by tag doesn't show."""
        name = f"{account.username}-ib-{account.environment}-{account.username_index}"
        found = self._droplets.find_by_name(name, self._work.priority)
        given = self._repository.known_enrolments({d.tag("enrolment") for d in found} - {""})
        return account.id in given.values()

    def _take_room(self, size: str, region: str, image: str) -> Room:
        """The check before creates, once in a pass for each kind; `left` counts those of this pass too."""
        key = (size, region, image)
        with self._work.lock:
            if key not in self._rooms:
                found = self._droplets.room(size, region, image, self._work.priority)
                self._rooms[key] = replace(found, left=found.left + self._created)
            room = self._rooms[key]
            left = room.left - self._created
            self._created += 1
            return replace(room, left=left)

    def _spec(self, account: Account, enrolment: NewEnrolment) -> DropletSpec:
        settings = self._settings
        login = Enrolment(settings.service_url, enrolment.token, account.id, settings.push_key)
        spec = droplet_spec(
            settings.stack,
            account.username,
            account.environment,  # type: ignore[arg-type]  # the database's check
            account.username_index,
            settings.droplets,
            login,
            "service",
        )
        return replace(spec, tags=(*spec.tags, f"enrolment:{enrolment.id}"))

    def _not_made(self, account: Account, reason: str, wait: float, detail: str = "") -> None:
        """Nothing was made for sure: says why, and when it is tried again."""
        busy = reason == "digitalocean_busy"
        self._work.change(
            account,
            status=State.PROVISIONING if busy else State.ERROR,
            status_reason=reason,
            status_detail=detail,
            create_started_at=None,
            retry_at=self._work.now + timedelta(seconds=wait),
        )
