"""What DigitalOcean does to a fleet, over the real client: each fault, what the user reads, how it ends."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from broker.fleet.account import Wanted
from broker.fleet.digitalocean import OutcomeUnknown, Priority, PydoDroplets, Throttled, Unavailable
from broker.fleet.spec import DropletSpec
from tests.fleet.model import Fleet
from tests.fleet.site import Site, serving_site

RUNNING = ("running", "")
CREATE = "POST /v2/droplets"


@pytest.fixture
def site(tmp_path) -> Iterator[Site]:
    with serving_site(tmp_path) as found:
        yield found


@pytest.fixture
def fleet(engine, vault, site) -> Fleet:
    return Fleet(engine, vault, site)


@pytest.fixture
def running(fleet) -> str:
    account = fleet.connect()
    fleet.until(account, *RUNNING)
    return account


def said(fleet: Fleet, account: str) -> str:
    return fleet.of(account).message


def recovers(fleet: Fleet, site: Site, account: str, creates: int, seconds: float = 0) -> None:
    """It gets there by itself, with one droplet and so many creates on the wire."""
    fleet.advance(seconds=seconds)
    fleet.until(account, *RUNNING)
    assert site.api.requests.count(CREATE) == creates
    assert len(site.api.ids()) == 1
    assert site.problems == []


def test_429_to_a_create_is_said_and_waited_for(fleet, site):
    account = fleet.connect()
    site.api.faults({"on": CREATE, "status": 429})
    fleet.pass_()
    assert fleet.status(account) == ("provisioning", "digitalocean_busy")
    assert "request limit" in said(fleet, account)
    site.client.budget._closed_until = 0.0  # its minute is over
    fleet.pass_()
    assert site.api.requests.count(CREATE) == 1, "the account's own pause isn't"
    recovers(fleet, site, account, creates=2, seconds=61)


@pytest.mark.parametrize("status", [500, 503])
def test_a_create_that_fails_is_looked_for_before_it_is_sent_again(fleet, site, status):
    account = fleet.connect()
    site.api.faults({"on": CREATE, "status": status})
    fleet.pass_()
    assert fleet.status(account) == ("provisioning", "create_unknown")
    assert "looked up" in said(fleet, account)
    fleet.passes(3)
    assert site.api.requests.count(CREATE) == 1
    recovers(fleet, site, account, creates=2, seconds=130)


@pytest.mark.parametrize("fault", [{"seconds": 1.5}, {"status": 500}, {"status": 503}])
def test_a_create_that_was_carried_out_and_not_answered_is_found(fleet, site, fault):
    site.client = PydoDroplets(site.api.token, site.api.url, timeout=1)
    account = fleet.connect()
    site.api.faults({"on": CREATE, "after": True, **fault})
    fleet.reconciler.run_pass()
    assert fleet.status(account) == ("provisioning", "create_unknown")
    recovers(fleet, site, account, creates=1)


def test_a_droplet_that_is_404_and_not_listed_at_first_is_waited_for(fleet, site):
    site.api.delays(visible=60, listed=90)
    account = fleet.connect()
    fleet.passes(3)
    assert fleet.status(account) == ("provisioning", "creating")
    assert "making the server" in said(fleet, account)
    assert site.api.requests.count(CREATE) == 1
    site.api.show_all()
    recovers(fleet, site, account, creates=1)


def test_a_lost_create_in_a_lagging_list_makes_no_second_droplet(fleet, site):
    site.api.delays(listed=60)
    account = fleet.connect()
    site.api.faults({"on": CREATE, "after": True, "status": 500})
    fleet.passes(2)
    assert fleet.status(account) == ("provisioning", "create_unknown")
    site.api.show_all()
    recovers(fleet, site, account, creates=1)


def test_a_list_that_fails_is_said_to_all_who_wait(fleet, site, running):
    stopping = fleet.connect(name="second")
    fleet.until(stopping, *RUNNING)
    fleet.repository.want(fleet.of(stopping), Wanted.STOPPED, "ada")
    waiting = fleet.connect(name="third")
    site.api.faults({"on": "GET /v2/droplets", "status": 503})
    assert fleet.pass_().problem == "digitalocean_away"
    assert fleet.status(running) == RUNNING, "nothing is wanted of it"
    for account in (stopping, waiting):
        assert fleet.of(account).status_reason == "digitalocean_away"
        assert "DigitalOcean doesn't answer" in said(fleet, account)
    fleet.until(stopping, "stopped", "powered_off")
    fleet.until(waiting, *RUNNING)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_stop_that_fails_is_said_and_repeated(fleet, site, running, status):
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    site.api.faults({"on": "POST /v2/droplets/*/actions", "status": status})
    fleet.pass_()
    reason = "digitalocean_busy" if status == 429 else "digitalocean_away"
    assert fleet.status(running) == ("stopped", reason)
    site.client.budget._closed_until = 0.0
    fleet.until(running, "stopped", "powered_off")


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("after", [False, True])
def test_a_delete_that_fails_is_said_and_repeated(fleet, site, running, status, after):
    fleet.repository.want(fleet.of(running), Wanted.DELETED, "ada")
    site.api.faults({"on": "DELETE /v2/droplets/*", "status": status, "after": after})
    fleet.pass_()
    assert fleet.of(running).status_reason in ("digitalocean_busy", "digitalocean_away")
    site.client.budget._closed_until = 0.0
    fleet.until(running, "deleted")
    assert site.api.ids() == []


def test_a_locked_droplet_is_switched_once_it_is_free(fleet, site, running):
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    locked = {"status": 422, "message": "Droplet already has a pending event."}
    site.api.faults({"on": "POST /v2/droplets/*/actions", **locked})
    fleet.pass_()
    assert fleet.status(running) == ("stopped", "stopping")
    assert "being stopped" in said(fleet, running)
    fleet.until(running, "stopped", "powered_off")
    fleet.repository.want(fleet.of(running), Wanted.DELETED, "ada")
    site.api.faults({"on": "DELETE /v2/droplets/*", **locked})
    fleet.pass_()
    assert fleet.status(running) == ("stopped", "deleting")
    fleet.until(running, "deleted")


def test_an_action_that_errs_is_said_and_repeated_until_it_works(fleet, site, running):
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    site.api.faults({"on": "action *", "times": 4})
    fleet.pass_()
    fleet.advance(seconds=61)
    fleet.pass_()  # power_off after a shutdown that didn't help
    for _ in range(2):
        fleet.advance(seconds=61)
        fleet.pass_()
        fleet.pass_()
        assert fleet.status(running) == ("stopped", "action_failed")
    assert "couldn't carry out" in said(fleet, running)
    kinds = [event.kind for _number, event in fleet.repository.history(running)]
    assert kinds.count("action_failed") == 2
    fleet.advance(seconds=61)
    fleet.until(running, "stopped", "powered_off")


def test_an_action_that_is_refused_is_said_and_not_repeated_at_once(fleet, site, running):
    fleet.repository.want(fleet.of(running), Wanted.STOPPED, "ada")
    refused = {"status": 422, "message": "Your account is on hold.", "times": 2}
    site.api.faults({"on": "POST /v2/droplets/*/actions", **refused})
    fleet.passes(4)
    assert fleet.status(running) == ("stopped", "action_failed")
    assert sum("actions" in request for request in site.api.requests) == 1
    history = [event.detail for _number, event in fleet.repository.history(running)]
    assert any("Your account is on hold" in detail for detail in history)
    for _ in range(2):
        fleet.advance(seconds=61)
        fleet.passes(2)
    fleet.until(running, "stopped", "powered_off")


def test_a_droplet_deleted_by_hand_is_replaced_and_said(fleet, site, running):
    site.delete_by_hand(site.api.ids()[0])
    fleet.pass_()
    fleet.pass_()
    assert fleet.of(running).status == "provisioning"
    recovers(fleet, site, running, creates=2)
    kinds = [event.kind for _number, event in fleet.repository.history(running)]
    assert "gone" in kinds


def test_a_droplet_deleted_by_hand_while_it_is_being_made_is_replaced(fleet, site):
    account = fleet.connect()
    fleet.reconciler.run_pass()
    site.settle()
    site.delete_by_hand(site.api.ids()[0])
    fleet.passes(2)
    assert site.api.requests.count(CREATE) == 1, "a 404 may mean that it can't be read yet"
    recovers(fleet, site, account, creates=2, seconds=130)


@pytest.mark.parametrize("wanted", [Wanted.STOPPED, Wanted.HIBERNATED, Wanted.DELETED])
def test_a_droplet_deleted_by_hand_is_nothing_to_stop(fleet, site, running, wanted):
    site.delete_by_hand(site.api.ids()[0])
    fleet.repository.want(fleet.of(running), wanted, "ada")
    ends = {
        Wanted.STOPPED: ("stopped", "no_droplet"),
        Wanted.HIBERNATED: ("stopped", "hibernated"),
        Wanted.DELETED: ("deleted", ""),
    }
    fleet.until(running, *ends[wanted])


@pytest.mark.parametrize("told_by_the_create", [False, True])
def test_a_quota_is_said_and_no_droplet_is_waited_for(fleet, site, told_by_the_create):
    account = fleet.connect()
    if told_by_the_create:
        words = "creating this/these droplet(s) will exceed your droplet limit"
        site.api.faults({"on": CREATE, "status": 422, "message": words})
    else:
        site.api.note("droplet_limit", 0)
    fleet.passes(2)
    assert fleet.status(account) == ("error", "quota_reached")
    assert "ask" in said(fleet, account)
    assert [kind for kind, _ in fleet.alarms] == ["quota_reached"]
    creates = site.api.requests.count(CREATE)
    site.api.note("droplet_limit", 10)
    recovers(fleet, site, account, creates=creates + 1, seconds=301)


def spec() -> DropletSpec:
    return DropletSpec(
        "ada-ib-demo-1", "s-1vcpu-1gb", "nyc1", "ubuntu-24-04-x64", ("ibeam",), "#cloud-config\n"
    )


@contextlib.contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that gives every request one answer, and closes; its URL and the requests' first lines."""
    requests: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    data = b""
                    while b"\r\n\r\n" not in data:
                        data += connection.recv(65536)
                    head, _, body = data.partition(b"\r\n\r\n")
                    lengths = [h for h in head.lower().split(b"\r\n") if h.startswith(b"content-length:")]
                    while lengths and len(body) < int(lengths[0].split(b":")[1]):
                        body += connection.recv(65536)
                    requests.append(head.split(b"\r\n")[0])
                    connection.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", requests
        listener.shutdown(socket.SHUT_RDWR)


def http(status: int, *headers: str) -> bytes:
    lines = [
        f"HTTP/1.1 {status} x",
        "content-type: application/json",
        "content-length: 2",
        "connection: close",
    ]
    return "\r\n".join([*lines, *headers, "", "{}"]).encode()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (http(408), OutcomeUnknown),
        (http(429, "retry-after: 0"), Throttled),
        *((http(status, "retry-after: 0"), OutcomeUnknown) for status in (500, 502, 503, 504)),
        (b"", OutcomeUnknown),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n{", OutcomeUnknown),
        (b"no HTTP\r\n\r\n", OutcomeUnknown),
        (http(200), OutcomeUnknown),
    ],
)
def test_a_create_is_on_the_wire_once_whatever_comes_back(answer, error):
    """pydo repeats a create on 5xx, 408, 429 and broken connections unless its retries are off."""
    with answering(answer) as (url, requests):
        client = PydoDroplets("token", url, timeout=5)
        with pytest.raises(error):
            client.create(spec(), Priority.USER)
        assert requests == [b"POST /v2/droplets HTTP/1.1"]


def test_a_create_isnt_sent_to_where_an_answer_points():
    with (
        answering(http(200)) as (elsewhere, there),
        answering(http(307, f"location: {elsewhere}/v2/droplets")) as (url, here),
    ):
        client = PydoDroplets("token", url, timeout=5)
        with pytest.raises(OutcomeUnknown):
            client.create(spec(), Priority.USER)
        with pytest.raises(Unavailable):
            client.get(1, Priority.USER)
    assert len(here) == 2
    assert there == []
