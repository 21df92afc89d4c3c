"""Faults of DigitalOcean's API that can be switched on: the account's note `faults`, a list of

    {"on": "POST /v2/droplets", "status": 503, "times": 2}       refused before anything is done
    {"on": "POST /v2/droplets", "status": 500, "after": true}    done, and then this answer
    {"on": "POST /v2/droplets", "seconds": 5, "after": true}     done, and then no answer for so long
    {"on": "DELETE /v2/droplets/*", "status": 422, "message": "Droplet already has a pending event."}
    {"on": "action power_on", "times": 1}                        taken on, and ends as `errored`

`*` stands for anything; `times` (1) counts down. Lists that lag and reads that are 404 after a create
are the account's note `delays`, a quota its `droplet_limit`, other rate limits its `rate_limits`.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

from localcloud.cloud import Cloud
from localcloud.digitalocean.parts import SETTINGS, Json, settings

_WORDS = {
    429: ("too_many_requests", "API Rate limit exceeded."),
    500: ("server_error", "Unexpected server-side error"),
    503: ("service_unavailable", "Service Unavailable"),
}


def take_fault(cloud: Cloud, what: str) -> Json | None:
    """The next fault that is due for a request (`POST /v2/droplets`) or an action (`action power_on`)."""
    faults = list(settings(cloud).get("faults") or [])
    for index, fault in enumerate(faults):
        if fnmatchcase(what, fault["on"]):
            left = int(fault.get("times", 1)) - 1
            faults[index : index + 1] = [{**fault, "times": left}] if left > 0 else []
            cloud.store.note(SETTINGS, "faults", faults)
            return dict(fault)
    return None


def words_of(fault: Json) -> tuple[str, str]:
    """The id and the message of a fault's answer."""
    known = _WORDS.get(int(fault.get("status", 500)), ("unprocessable_entity", "Unprocessable."))
    return known[0], str(fault.get("message", known[1]))
