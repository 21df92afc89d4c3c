"""A killed run's state is settled by what the cloud says; end-to-end tests do it with the real engine."""

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.interrupted import MARK, SECRET, checkpoint, plain, repair, settle, stack_file

URN = "urn:pulumi:local::ibkr::gcp:compute/network:Network::net"


def resource(urn: str = URN, **more: Any) -> dict[str, Any]:
    return {
        "urn": urn,
        "custom": True,
        "type": "gcp:compute/network:Network",
        "inputs": {"name": "net"},
    } | more


def begun(kind: str, **more: Any) -> dict[str, Any]:
    return {"resources": [], "pending_operations": [{"type": kind, "resource": resource(**more)}]}


def nothing(kind: str, inputs: Mapping[str, Any]) -> list[str]:
    return []


def test_what_the_cloud_made_is_taken_into_the_state() -> None:
    state = begun("creating")
    settled, in_hand = settle(state, state, lambda kind, inputs: ["networks/net"])
    assert [(known["urn"], known["id"]) for known in settled["resources"]] == [(URN, "networks/net")]
    assert in_hand == [URN]
    assert "pending_operations" not in settled


def test_what_the_cloud_did_not_make_is_forgotten() -> None:
    settled, _ = settle(begun("creating"), begun("creating"), nothing)
    assert settled["resources"] == [], "the next `up` creates it"


def test_a_resource_that_the_state_has_is_not_taken_twice() -> None:
    """Names of droplets aren't unique: the one that was begun may have a twin."""
    state = begun("creating") | {"resources": [resource("urn::other", id="1")]}
    settled, _ = settle(state, state, lambda kind, inputs: ["1", "2"])
    assert [known["id"] for known in settled["resources"]] == ["1", "2"]


def test_the_older_of_a_replacement_is_deleted_by_the_next_run() -> None:
    state = begun("creating") | {"resources": [resource(id="old")]}
    settled, _ = settle(state, state, lambda kind, inputs: ["new"])
    assert [(known["id"], known.get("delete")) for known in settled["resources"]] == [
        ("old", True),
        ("new", None),
    ]


def test_an_update_or_a_deletion_that_was_begun_is_looked_at_again() -> None:
    for kind in ("updating", "deleting"):
        state = begun(kind) | {"resources": [resource(id="1")]}
        settled, in_hand = settle(state, state, nothing)
        assert settled["resources"] == [resource(id="1")]
        assert in_hand == [URN], "a refresh of it finds out what became of it"


def test_the_cloud_is_asked_with_readable_secrets_which_stay_out_of_the_state() -> None:
    sealed, opened = begun("creating"), begun("creating")
    sealed["pending_operations"][0]["resource"]["inputs"] = {"key": {MARK: SECRET, "ciphertext": "v1:x"}}
    secret = {MARK: SECRET, "plaintext": json.dumps("hunter2")}
    opened["pending_operations"][0]["resource"]["inputs"] = {"key": secret}
    asked: list[Mapping[str, Any]] = []

    def find(kind: str, inputs: Mapping[str, Any]) -> list[str]:
        asked.append(inputs)
        return ["1"]

    settled, _ = settle(sealed, opened, find)
    assert asked == [{"key": "hunter2"}]
    assert "hunter2" not in json.dumps(settled)


def test_secrets_are_unwrapped_wherever_they_are() -> None:
    secret = {MARK: SECRET, "plaintext": json.dumps({"inner": [1, "x"]})}
    assert plain({"a": [secret, {"b": secret}], "c": 1}) == {
        "a": [{"inner": [1, "x"]}, {"b": {"inner": [1, "x"]}}],
        "c": 1,
    }


def test_settling_changes_neither_of_its_arguments() -> None:
    state = begun("creating")
    before = copy.deepcopy(state)
    settle(state, state, lambda kind, inputs: ["1"])
    assert state == before


def write_state(folder: Path, latest: dict[str, Any]) -> None:
    file = stack_file(folder)
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps({"checkpoint": {"latest": latest}}))


def test_a_dead_engines_lock_is_removed_and_nothing_else_done(tmp_path: Path) -> None:
    write_state(tmp_path, {"resources": [resource(id="1")]})
    lock = tmp_path / ".pulumi" / "locks" / "organization" / "ibkr" / "local" / "x.json"
    lock.parent.mkdir(parents=True)
    lock.write_text("{}")
    asked: list[tuple[str, ...]] = []

    def ask(*arguments: str, text: str = "") -> str:
        asked.append(arguments)
        return ""

    repair(tmp_path, nothing, ask)
    assert asked == [("cancel", "--yes", "--stack", "local")]


def test_what_a_killed_engine_had_half_written_is_removed(tmp_path: Path) -> None:
    """An empty attributes file made every later command fail: "failed to load checkpoint: EOF"."""
    write_state(tmp_path, {"resources": []})
    stack = stack_file(tmp_path)
    empty, whole = stack.with_suffix(".json.attrs"), stack.with_suffix(".json.bak.attrs")
    empty.touch()
    whole.write_text("{}")
    draft = stack.with_suffix(".json.18ea.tmp")
    draft.write_text("{")
    repair(tmp_path, nothing, lambda *arguments, text="": "")
    assert not empty.exists()
    assert not draft.exists()
    assert whole.exists()
    assert stack.exists()


def test_a_sound_state_is_left_alone(tmp_path: Path) -> None:
    write_state(tmp_path, {"resources": [resource(id="1")]})

    def ask(*arguments: str, text: str = "") -> str:
        raise AssertionError(arguments)

    repair(tmp_path, nothing, ask)


def test_only_what_was_in_hand_and_is_there_is_refreshed(tmp_path: Path) -> None:
    other = "urn:pulumi:local::ibkr::gcp:compute/network:Network::never-made"
    state = begun("creating")
    state["pending_operations"].append({"type": "creating", "resource": resource(other)})
    write_state(tmp_path, state)
    asked: list[tuple[tuple[str, ...], str]] = []

    def ask(*arguments: str, text: str = "") -> str:
        asked.append((arguments, text))
        return json.dumps({"version": 3, "deployment": state})

    made = iter([["1"], []])
    repair(tmp_path, lambda kind, inputs: next(made), ask)
    commands = [arguments[0] for arguments, _ in asked]
    assert commands == ["stack", "stack", "stack", "refresh"]
    imported = json.loads(asked[2][1])
    assert [known["id"] for known in imported["deployment"]["resources"]] == ["1"]
    assert asked[3][0][-2:] == ("--target", URN)
    assert other not in asked[3][0]


def test_a_stack_that_was_never_made_has_no_state(tmp_path: Path) -> None:
    assert checkpoint(tmp_path) == {}
