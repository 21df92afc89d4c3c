"""The DigitalOcean client against the local API, its faults included."""

from __future__ import annotations

import pytest

from broker.fleet.digitalocean import (
    Budget,
    Locked,
    NotFound,
    OutcomeUnknown,
    Priority,
    PydoDroplets,
    QuotaReached,
    Refused,
    Throttled,
    Unauthorized,
    Unavailable,
    passes_calls,
)
from broker.fleet.spec import DropletSpec
from tests.fleet.local_digitalocean import serving

USER, BACKGROUND = Priority.USER, Priority.BACKGROUND
SECRET = "token-in-user-data"
TAG = "stack:test"


@pytest.fixture
def api(tmp_path):
    with serving(tmp_path) as found:
        yield found


@pytest.fixture
def droplets(api):
    return PydoDroplets(api.token, api.url)


def spec(name="ada-ib-demo-1", **changes) -> DropletSpec:
    values = {
        "name": name, "size": "s-1vcpu-1gb", "region": "nyc1", "image": "ubuntu-24-04-x64",
        "tags": ("ibeam", TAG, "account:a1"), "user_data": f"#cloud-config\n# {SECRET}\n",
    }  # fmt: skip
    return DropletSpec(**values | changes)


def test_a_droplets_life(api, droplets):
    made = droplets.create(spec(), USER)
    assert (made.status, made.address, made.tag("account")) == ("new", "", "a1")
    api.settle()
    found = droplets.get(made.id, USER)
    assert (found.status, found.region, found.size) == ("active", "nyc1", "s-1vcpu-1gb")
    assert found.address.startswith("127.")
    assert [d.id for d in droplets.list_by_tag(TAG, BACKGROUND)] == [made.id]
    assert [d.id for d in droplets.find_by_name("ada-ib-demo-1", USER)] == [made.id]
    action = droplets.act(made.id, "power_off", USER)
    api.settle()
    assert droplets.action_status(made.id, action, USER) == "completed"
    assert droplets.get(made.id, USER).status == "off"
    droplets.delete(made.id, USER)
    droplets.delete(made.id, USER)
    with pytest.raises(NotFound):
        droplets.get(made.id, USER)
    with pytest.raises(NotFound):
        droplets.act(made.id, "power_on", USER)


def test_a_list_costs_one_call_for_200(api, droplets):
    api.note("droplet_limit", 1000)
    for batch in range(21):
        names = [f"ada-ib-demo-{batch}-{n}" for n in range(10 if batch < 20 else 1)]
        request = {"names": names, "region": "nyc1", "size": "s-1vcpu-1gb", "image": "ubuntu-24-04-x64"}
        api.run(api.account.create_droplet({**request, "tags": [TAG]}))
    api.settle()
    del api.requests[:]
    assert len(droplets.list_by_tag(TAG, BACKGROUND)) == 201
    assert len(api.requests) == 2 == passes_calls(201)
    assert (passes_calls(0), passes_calls(200), passes_calls(10_000)) == (1, 1, 50)


@pytest.mark.parametrize("status", [500, 503])
def test_a_create_that_fails_inside_digitalocean_is_sent_once(api, droplets, status):
    api.faults({"on": "POST /v2/droplets", "status": status, "times": 5})
    with pytest.raises(OutcomeUnknown):
        droplets.create(spec(), USER)
    assert api.requests.count("POST /v2/droplets") == 1
    assert api.count() == 0


def test_a_create_whose_answer_is_lost_is_unknown_and_not_repeated(api, droplets):
    hasty = PydoDroplets(api.token, api.url, timeout=1)
    api.faults({"on": "POST /v2/droplets", "seconds": 2.5, "after": True})
    with pytest.raises(OutcomeUnknown) as caught:
        hasty.create(spec(), USER)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert api.requests.count("POST /v2/droplets") == 1
    assert api.count() == 1


def test_a_create_that_was_made_and_answered_500_is_unknown(api, droplets):
    api.faults({"on": "POST /v2/droplets", "status": 500, "after": True})
    with pytest.raises(OutcomeUnknown):
        droplets.create(spec(), USER)
    assert api.count() == 1


def test_reads_lag_a_create_and_lists_more(api, droplets):
    api.delays(visible=60, listed=60)
    made = droplets.create(spec(), USER)
    with pytest.raises(NotFound):
        droplets.get(made.id, USER)
    assert droplets.list_by_tag(TAG, USER) == []


def test_reads_that_fail_say_that_digitalocean_is_away(api, droplets):
    api.faults({"on": "GET /v2/droplets", "status": 503})
    with pytest.raises(Unavailable):
        droplets.list_by_tag(TAG, BACKGROUND)
    assert droplets.list_by_tag(TAG, BACKGROUND) == []
    with pytest.raises(Unavailable):
        PydoDroplets(api.token, "http://127.0.0.1:9", timeout=1).list_by_tag(TAG, USER)


def test_refusals_have_types(api, droplets):
    with pytest.raises(Refused, match="invalid image"):
        droplets.create(spec(image="182556282"), USER)
    with pytest.raises(Unauthorized, match="DIGITAL_OCEAN_API_KEY"):
        PydoDroplets("wrong", api.url).list_by_tag(TAG, USER)
    api.note("droplet_limit", 0)
    with pytest.raises(QuotaReached):
        droplets.create(spec(), USER)
    assert api.count() == 0


def test_a_locked_droplet_is_left_alone(api, droplets):
    made = droplets.create(spec(), USER)
    api.settle()
    api.delays(action=0.5)
    droplets.act(made.id, "power_off", USER)
    with pytest.raises(Locked):
        droplets.act(made.id, "power_off", USER)
    with pytest.raises(Locked):
        droplets.delete(made.id, USER)


def test_an_action_that_errs_says_so_afterwards(api, droplets):
    made = droplets.create(spec(), USER)
    api.settle()
    api.faults({"on": "action power_off"})
    action = droplets.act(made.id, "power_off", USER)
    api.settle()
    assert droplets.action_status(made.id, action, USER) == "errored"
    assert droplets.get(made.id, USER).status == "active"


def test_their_limit_closes_the_budget_until_it_ends(api):
    moment = [0.0]
    client = PydoDroplets(api.token, api.url, Budget(clock=lambda: moment[0]))
    api.note("rate_limits", {"minute": 1})
    client.list_by_tag(TAG, USER)
    with pytest.raises(Throttled) as caught:
        client.list_by_tag(TAG, USER)
    assert 0 < caught.value.wait <= 60
    with pytest.raises(Throttled):
        client.list_by_tag(TAG, USER)
    assert len(api.requests) == 2, "the third wasn't sent"
    api.note("rate_limits", None)
    moment[0] += 61
    client.list_by_tag(TAG, USER)


def test_the_check_before_a_create_names_what_is_missing(api, droplets):
    good = ("s-1vcpu-1gb", "nyc1", "ubuntu-24-04-x64")
    found = droplets.room(*good, USER)
    assert (found.problem, found.reason, found.left, found.price_monthly) == ("", "", 25, 6.0)
    bad = {
        "size_unavailable": ("s-none", "nyc1", "ubuntu-24-04-x64"),
        "region_unavailable": ("s-1vcpu-1gb", "nyc2", "ubuntu-24-04-x64"),
        "image_unavailable": ("s-1vcpu-1gb", "nyc1", "182556282"),
    }
    for reason, place in bad.items():
        found = droplets.room(*place, USER)
        assert found.reason == reason
        assert repr(place[("size", "region", "image").index(reason.split("_")[0])]) in found.problem
    del api.requests[:]
    droplets.room(*good, USER)
    assert api.requests == ["GET /v2/account", "GET /v2/droplets"], "the catalogue is kept"


def take(budget, priority, times):
    for _ in range(times):
        budget.take(priority)


def test_background_work_leaves_room_for_users_and_nobody_exceeds_the_limits():
    moment = [1000.0]
    budget = Budget(per_hour=100, per_minute=10, clock=lambda: moment[0])
    take(budget, BACKGROUND, 8)
    with pytest.raises(Throttled):
        budget.take(BACKGROUND)
    take(budget, USER, 2)
    with pytest.raises(Throttled) as caught:
        budget.take(USER)
    assert caught.value.wait == 60
    sent = [moment[0]] * 10
    for _ in range(3599):
        moment[0] += 1
        try:
            budget.take(USER)
            sent.append(moment[0])
        except Throttled:
            continue
    for window, limit in ((60, 10), (3600, 100)):
        assert max(sum(1 for t in sent if start < t <= start + window) for start in sent) <= limit
    assert len(sent) == 100


def test_what_other_programs_use_counts():
    moment = [0.0]
    budget = Budget(per_hour=100, per_minute=50, clock=lambda: moment[0])
    budget.told("15")
    assert budget.left == 15
    with pytest.raises(Throttled):
        budget.take(BACKGROUND)
    budget.take(USER)
    moment[0] = 61
    budget.take(BACKGROUND)


@pytest.mark.parametrize(
    ("accounts", "seconds"), [(1, 60), (200, 60), (10_000, 90), (100_000, 900), (1_000_000, 9000)]
)
def test_the_interval_stretches_with_the_number_of_droplets(accounts, seconds):
    calls = passes_calls(accounts)
    interval = Budget().interval(calls, 60.0)
    assert interval == pytest.approx(seconds)
    assert calls * 3600 / interval <= 5000
