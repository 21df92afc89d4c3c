"""Which network a local cloud gets, decided by what is really occupied on this machine."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.control import Daemon
from tools import local_cloud
from tools.local_cloud import API_HOST, API_PORT, CommandFailed, LocalCloud, in_network, is_free

FIRST, SECOND = "127.250", "127.251"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LocalCloud:
    monkeypatch.setattr(local_cloud, "NETWORKS", [FIRST, SECOND])
    return LocalCloud(tmp_path / "home" / "cloud")


@pytest.fixture
def occupied() -> Iterator[None]:
    with socket.create_server((f"{FIRST}.{API_HOST}", API_PORT)):
        yield


def remember(cloud: LocalCloud, network: str) -> None:
    cloud.home.parent.mkdir(exist_ok=True)
    (cloud.home.parent / "network").write_text(network)


def test_the_first_free_network_is_chosen(cloud: LocalCloud) -> None:
    assert cloud.choose_network(keep=False) == FIRST


@pytest.mark.usefixtures("occupied")
def test_one_that_another_local_cloud_occupies_is_left_to_it(cloud: LocalCloud) -> None:
    assert not is_free(FIRST)
    assert cloud.choose_network(keep=False) == SECOND


def test_the_remembered_one_is_taken_again(cloud: LocalCloud) -> None:
    remember(cloud, SECOND)
    assert cloud.choose_network(keep=False) == SECOND


@pytest.mark.usefixtures("occupied")
def test_an_empty_stack_moves_when_its_network_was_taken_meanwhile(cloud: LocalCloud) -> None:
    remember(cloud, FIRST)
    assert cloud.choose_network(keep=False) == SECOND


@pytest.mark.usefixtures("occupied")
def test_a_stack_that_is_up_keeps_its_network(cloud: LocalCloud) -> None:
    """Its resources have the addresses; the start then says who is in the way."""
    remember(cloud, FIRST)
    assert cloud.choose_network(keep=True) == FIRST


@pytest.mark.usefixtures("occupied")
def test_without_a_free_network_the_message_says_what_to_do(
    cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_cloud, "NETWORKS", [FIRST])
    with pytest.raises(CommandFailed, match="make destroy"):
        cloud.choose_network(keep=False)


def test_a_cloud_that_never_ran_is_stopped_without_ado(cloud: LocalCloud) -> None:
    cloud.stop()
    assert not cloud.is_running()


def test_asking_a_cloud_that_does_not_run_says_so(cloud: LocalCloud) -> None:
    with pytest.raises(CommandFailed, match="make up"):
        cloud.token()


def test_only_addresses_of_the_default_network_move() -> None:
    text = "a: 127.20.0.0/24\nb: 10.127.20.1\nc: 127.200.1.1\nd: http://127.20.255.1:8400\n"
    moved = in_network(text, "127.77")
    assert moved == "a: 127.77.0.0/24\nb: 10.127.20.1\nc: 127.200.1.1\nd: http://127.77.255.1:8400\n"


def test_a_local_cloud_of_older_code_is_started_anew(cloud: LocalCloud) -> None:
    """After a `git pull` it didn't know what the new cloud-init asks of it."""

    def pid() -> int:
        return int(Daemon(cloud.home).about()["pid"])

    try:
        cloud.start(keep_network=False)
        first = pid()
        cloud.start(keep_network=True)
        assert pid() == first
        (cloud.home.parent / "cloud-code").write_text("of another commit")
        assert not cloud.runs_this_code()
        cloud.start(keep_network=True)
        assert pid() != first
        assert cloud.runs_this_code()
    finally:
        cloud.stop()
