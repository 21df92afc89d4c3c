"""Credentials at rest: envelopes that open for their owner only, and the change of the wrapping key."""

from __future__ import annotations

import base64
import json
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import httpx
import pytest
from sqlalchemy import func, insert, select, text, update

from broker.fleet.keys import FleetKeys, rewrap
from broker.fleet.models import broker_accounts, fleet_keys
from broker.fleet.vault import KmsWrapper, LocalKeyWrapper, Sealed, Vault, VaultError
from broker.service.migrate import migrate

PASSWORD = "p\"a's\\s/w&o$r`d\n!é"
KMS_KEY = "projects/p/locations/l/keyRings/r/cryptoKeys/k"


def test_what_was_sealed_opens_and_looks_like_noise(vault):
    sealed = vault.seal("ib-demo-1", {"password": PASSWORD, "username": "ada"})
    assert vault.unseal("ib-demo-1", sealed) == {"password": PASSWORD, "username": "ada"}
    assert not any(b"ada" in v or PASSWORD.encode() in v for v in sealed.values.values())
    assert PASSWORD not in repr(sealed)
    assert repr(sealed.values["username"]) not in repr(sealed)


def test_a_value_opens_neither_in_another_row_nor_in_another_column_nor_altered(vault):
    sealed = vault.seal("one", {"password": PASSWORD, "username": "ada"})
    with pytest.raises(VaultError):
        vault.unseal("two", sealed)
    swapped = replace(sealed, values={"username": sealed.values["password"]})
    with pytest.raises(VaultError, match="username of one"):
        vault.unseal("one", swapped)
    altered = bytes([sealed.values["password"][-1] ^ 1])
    with pytest.raises(VaultError) as caught:
        vault.unseal("one", replace(sealed, values={"password": sealed.values["password"][:-1] + altered}))
    assert PASSWORD not in str(caught.value)


def test_rows_have_data_keys_of_their_own(vault):
    first, second = vault.seal("one", {"a": "x"}), vault.seal("one", {"a": "x"})
    assert first.data_key != second.data_key
    with pytest.raises(VaultError):
        vault.unseal("one", Sealed(first.key_name, first.data_key, second.values))


def test_a_key_file_is_its_owners_and_new_keys_come_first(tmp_path):
    path = tmp_path / "fleet.key"
    first = LocalKeyWrapper.add_key(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    sealed = Vault(LocalKeyWrapper.open(path)).seal("one", {"a": "x"})
    second = LocalKeyWrapper.add_key(path)
    both = LocalKeyWrapper.open(path)
    assert (both.is_current(first), both.is_current(second)) == (False, True)
    assert Vault(both).unseal("one", sealed) == {"a": "x"}
    path.write_text(path.read_text().splitlines()[0] + "\n")
    with pytest.raises(VaultError, match=first):
        Vault(LocalKeyWrapper.open(path)).unseal("one", sealed)


@pytest.mark.parametrize("content", ["", "k1", "k1:short", "k1:" + "A" * 44, "é"])
def test_a_bad_key_file_is_refused_without_its_content(tmp_path, content):
    path = tmp_path / "fleet.key"
    path.write_text(content)
    with pytest.raises(VaultError, match="key file") as caught:
        LocalKeyWrapper.open(path)
    assert "AAAA" not in str(caught.value)


class Kms:
    """Cloud KMS's REST API, as far as the wrapper goes: documents as in its reference."""

    def __init__(self) -> None:
        self.version, self.status, self.calls = 1, 200, []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.calls.append(request.url.path)
        if request.url.path.endswith("/token"):
            assert request.headers["metadata-flavor"] == "Google"
            return httpx.Response(200, json={"access_token": "t", "expires_in": 3600})
        assert request.headers["authorization"] == "Bearer t"
        if self.status != 200:
            return httpx.Response(self.status)
        name = f"{KMS_KEY}/cryptoKeyVersions/{self.version}"
        if request.method == "GET":
            return httpx.Response(200, json={"primary": {"name": name}})
        body = json.loads(request.content)
        if request.url.path.endswith(":encrypt"):
            held = json.dumps([name, body["plaintext"], body["additionalAuthenticatedData"]])
            return httpx.Response(
                200, json={"name": name, "ciphertext": base64.b64encode(held.encode()).decode()}
            )
        _, plaintext, context = json.loads(base64.b64decode(body["ciphertext"]))
        if context != body["additionalAuthenticatedData"]:
            return httpx.Response(400)
        return httpx.Response(200, json={"plaintext": plaintext})


@pytest.fixture
def kms() -> Kms:
    return Kms()


@pytest.fixture
def kms_wrapper(kms) -> KmsWrapper:
    return KmsWrapper(KMS_KEY, httpx.Client(transport=httpx.MockTransport(kms)))


def test_kms_wraps_with_the_owner_as_context(kms, kms_wrapper):
    vault = Vault(kms_wrapper)
    sealed = vault.seal("one", {"a": "x"})
    assert sealed.key_name.endswith("cryptoKeyVersions/1")
    assert vault.unseal("one", sealed) == {"a": "x"}
    assert sum(path.endswith("/token") for path in kms.calls) == 1
    with pytest.raises(VaultError, match="400"):
        vault.unseal("two", sealed)
    assert vault.rewrap("one", sealed.key_name, sealed.data_key) is None
    kms.version = 2
    again = vault.rewrap("one", sealed.key_name, sealed.data_key)
    assert again is not None
    assert again[0].endswith("cryptoKeyVersions/2")
    assert vault.unseal("one", Sealed(*again, sealed.values)) == {"a": "x"}


def test_kms_failures_say_whether_waiting_helps(kms, kms_wrapper):
    for kms.status, temporary in ((503, True), (429, True), (403, False)):
        with pytest.raises(VaultError) as caught:
            Vault(kms_wrapper).seal("one", {"a": "x"})
        assert caught.value.temporary is temporary
    with pytest.raises(VaultError, match="must look like"):
        KmsWrapper("k")


def add_account(engine, vault, account="ib-demo-00000001"):
    sealed = vault.seal(account, {"password": PASSWORD})
    with engine.begin() as db:
        db.execute(
            insert(broker_accounts).values(
                id=account, user_id="ada", username="ada", username_index=1, environment="demo",
                ib_username_hash="h", wanted="running", status="provisioning",
                status_since=func.now(), created_at=func.now(), updated_at=func.now(),
                key_name=sealed.key_name, sealed_data_key=sealed.data_key,
                sealed_password=sealed.values["password"],
            )
        )  # fmt: skip


def stored_password(engine, vault, account="ib-demo-00000001"):
    column = broker_accounts.c
    with engine.connect() as db:
        row = db.execute(
            select(column.key_name, column.sealed_data_key, column.sealed_password).where(
                column.id == account
            )
        ).one()
    return vault.unseal(account, Sealed(row[0], row[1], {"password": row[2]}))["password"]


def test_rewrapping_changes_data_keys_only_and_lets_the_old_key_go(engine):
    old = Vault(LocalKeyWrapper({"k1": b"1" * 32}))
    add_account(engine, old)
    keys = FleetKeys(engine, old)
    both = Vault(LocalKeyWrapper({"k2": b"2" * 32, "k1": b"1" * 32}))
    with engine.connect() as db:
        before = db.execute(select(broker_accounts.c.sealed_password)).scalar_one()
    assert rewrap(engine, both) == 3
    assert rewrap(engine, both) == 0
    with engine.connect() as db:
        assert db.execute(select(broker_accounts.c.sealed_password)).scalar_one() == before
    new = Vault(LocalKeyWrapper({"k2": b"2" * 32}))
    assert stored_password(engine, new) == PASSWORD
    assert FleetKeys(engine, new).push_key == keys.push_key
    assert FleetKeys(engine, new).username_hash("Ada") == keys.username_hash("ada")
    with pytest.raises(VaultError):
        stored_password(engine, old)


def test_rewrapping_leaves_a_row_that_is_written_at_the_same_moment(engine):
    both = Vault(LocalKeyWrapper({"k2": b"2" * 32, "k1": b"1" * 32}))
    add_account(engine, Vault(LocalKeyWrapper({"k1": b"1" * 32})))

    class Overtaken(LocalKeyWrapper):
        def wrap(self, key, context):
            sealed = both.seal("ib-demo-00000001", {"password": "changed"})
            with engine.begin() as db:
                db.execute(
                    update(broker_accounts).values(
                        key_name=sealed.key_name,
                        sealed_data_key=sealed.data_key,
                        sealed_password=sealed.values["password"],
                    )
                )
            return super().wrap(key, context)

    assert rewrap(engine, Vault(Overtaken({"k2": b"2" * 32, "k1": b"1" * 32}))) == 0
    assert stored_password(engine, both) == "changed"


def test_many_instances_agree_on_the_fleets_keys(engine, vault):
    with ThreadPoolExecutor(8) as threads:
        keys = list(threads.map(lambda _n: FleetKeys(engine, vault), range(12)))
    assert len({one.push_key for one in keys}) == 1
    assert len({one.username_hash("ada") for one in keys}) == 1
    with engine.connect() as db:
        assert db.execute(select(func.count()).select_from(fleet_keys)).scalar() == 2


def test_the_migration_keeps_orders_up_and_down(empty_database, vault):
    from broker.service.database import make_engine

    engine = make_engine(empty_database, 0)
    said: list[str] = []
    migrate(engine, "0003", say=said.append)
    with engine.begin() as db:
        db.execute(
            text(
                "insert into orders (id, account, client_order_id, symbol, side, qty, order_type,"
                " time_in_force, status, warnings, filled_qty, created_at, updated_at) values"
                " (:id, 'A1', 'old', 'AAPL', 'buy', 5, 'market', 'day', 'filled', '[]', 5, now(), now())"
            ),
            {"id": "a" * 32},
        )
    migrate(engine, say=said.append)
    add_account(engine, vault)
    assert stored_password(engine, vault) == PASSWORD
    with engine.connect() as db:
        row = db.execute(text("select policy, version, wanted from broker_accounts")).one()
        assert tuple(row) == ("always", 0, "running")
    migrate(engine, "0003", say=said.append)
    with engine.connect() as db:
        assert db.execute(text("select to_regclass('broker_accounts')")).scalar() is None
        assert db.execute(text("select client_order_id from orders")).scalars().all() == ["old"]
    migrate(engine, say=said.append)
    add_account(engine, vault)
    engine.dispose()
