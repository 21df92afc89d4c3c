"""The store: it remembers, and keeps to itself what it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcloud.addresses import Addresses
from localcloud.cloud import CloudError
from localcloud.state import Resource, Store, StoreDamagedError

SECRET = "correct horse battery staple"


def test_no_file_of_the_home_holds_a_secret_in_the_clear(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.put(Resource("t", "version-1", {"secretData": SECRET}, {"copy": SECRET}))
    store.note("machines", "gce/x", {"spec": {"user_data": f"password: {SECRET}"}})
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "store.sqlite-wal" for path in files), "the journal counts, too"
    for path in files:
        assert SECRET.encode() not in path.read_bytes(), path.name
        assert path.stat().st_mode & 0o077 == 0, f"{path.name} is readable by others"
    store.close()


def test_a_store_opened_again_holds_what_was_put(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    for name in ("b", "a"):
        store.put(Resource("t", name, {"name": name}))
    store.put(Resource("t", "b", {"name": "b", "size": 2}))
    store.delete("t", "a")
    store.note("names", "taken", [1, 2])
    store.close()
    again = Store.open(tmp_path)
    assert [found.id for found in again.all("t")] == ["b"]
    assert again.find("t", size=2) == [Resource("t", "b", {"name": "b", "size": 2})]
    assert again.notes("names") == {"taken": [1, 2]}
    again.close()


def test_what_the_store_returns_is_a_copy(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.put(Resource("t", "a", {"tags": ["x"]}))
    found = store.get("t", "a")
    assert found is not None
    found.inputs["tags"].append("y")
    assert store.all("t")[0].inputs == {"tags": ["x"]}
    store.close()


def test_a_row_moved_to_another_name_is_noticed(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.put(Resource("t", "mine", {"value": 1}))
    store._database.execute("UPDATE resources SET id = 'theirs'")
    store.close()
    with pytest.raises(StoreDamagedError, match="remove its home folder"):
        Store.open(tmp_path)


def test_a_key_that_does_not_fit_says_what_to_do(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    store.note("a", "b", 1)
    store.close()
    (tmp_path / "store.key").write_bytes(b"\0" * 32)
    with pytest.raises(StoreDamagedError, match="remove its home folder"):
        Store.open(tmp_path)


def test_an_address_stays_with_its_owner_until_released(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    addresses = Addresses(store, "127.40")
    first, second = addresses.allocate_public("a"), addresses.allocate_public("b")
    assert first != second
    assert addresses.allocate_public("a") == first
    assert Addresses(store, "127.40").allocate_public("a") == first
    addresses.release("a")
    assert addresses.allocate_public("c") == first, "a released address is handed out again"
    store.close()


def test_a_range_has_an_end_and_a_claimed_address_an_owner(tmp_path: Path) -> None:
    store = Store.open(tmp_path)
    addresses = Addresses(store, "127.40")
    addresses.claim("127.40.1.3", "vm")
    assert addresses.allocate_in("127.40.1.0/29", "a") == "127.40.1.2"
    assert addresses.allocate_in("127.40.1.0/29", "b") == "127.40.1.4"
    with pytest.raises(CloudError, match="already being used"):
        addresses.claim("127.40.1.4", "another")
    addresses.allocate_in("127.40.1.0/29", "c")
    with pytest.raises(CloudError, match="exhausted"):
        addresses.allocate_in("127.40.1.0/29", "d")
    store.close()
