"""Who is at the other end: a pinned certificate, one that is pinned when first seen, and one that changes."""

# ruff: noqa: F811 - fixtures are imported by name
from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from broker.alerts import Alerts, AlertWatch
from broker.brokers.client_portal import tls, wire
from broker.brokers.client_portal.acceptance import accept, look
from broker.brokers.client_portal.tls import (
    CertificateChanged,
    FixedPin,
    HandshakeFailed,
    KeptPin,
    context_for,
    fingerprint,
)
from broker.brokers.client_portal.wire import OrderWire, Silence, Unreachable, Wire
from broker.errors import CertificateMismatch, ConfigurationError, InvalidRequest, NotConnected
from broker.factory import BrokerSettings, build_broker
from broker.journal import Journal
from broker.pins import PinnedCertificates, gateway_of
from tests.broker.alert_receiver import listening
from tests.broker.ordering import request
from tests.broker.paper_gateway import eventually
from tests.broker.portal_fixtures import make_portal_broker, portal  # noqa: F401
from tests.broker.portal_gateway import ACCOUNT, Portal, write_certificate

TOKEN = "a-token-nobody-else-may-see"


def der(pem: str | Path) -> bytes:
    return ssl.PEM_cert_to_DER_cert(Path(pem).read_text())


def pin_of(portal: Portal, name: str = "own") -> FixedPin:
    return FixedPin((portal.folder / f"{name}.pem").read_text())


class Relay:
    """A port in front of a gateway's: while `stranger` is set, somebody with another key answers there."""

    def __init__(self, behind: int, folder: Path) -> None:
        self.stranger = False
        self.heard: list[bytes] = []
        self.tries = 0
        self._behind = behind
        self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._tls.load_cert_chain(*write_certificate(folder, "stranger"))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                taken, _ = self._listener.accept()
                self._open.append(taken)
                threading.Thread(target=self._serve, args=(taken,), daemon=True).start()

    def _serve(self, taken: socket.socket) -> None:
        with contextlib.suppress(OSError):
            if self.stranger:
                self.tries += 1
                with self._tls.wrap_socket(taken, server_side=True) as secured:
                    while data := secured.recv(65536):
                        self.heard.append(data)
                return
            behind = socket.create_connection(("127.0.0.1", self._behind))
            self._open.append(behind)
            threading.Thread(target=self._pump, args=(behind, taken), daemon=True).start()
            self._pump(taken, behind)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)

    def replace(self) -> None:
        """Another machine takes the address: what was connected is cut off."""
        self.stranger = True
        self.cut()

    def cut(self) -> None:
        for held in self._open:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
                held.close()
        self._open.clear()

    def close(self) -> None:
        self._listener.close()
        self.cut()


@pytest.fixture
def relay(portal: Portal) -> Iterator[Relay]:
    made = Relay(int(portal.url.rpartition(":")[2]), portal.folder)
    yield made
    made.close()


# A pin


def test_a_pin_is_a_pem_or_its_sha256_however_it_is_written(portal: Portal) -> None:
    expected = hashlib.sha256(der(portal.ca_file)).hexdigest()
    colons = ":".join(expected[n : n + 2] for n in range(0, 64, 2)).upper()
    for written in (Path(portal.ca_file).read_text(), expected, colons, f" {expected}\n"):
        assert FixedPin(written).sha256 == expected
    for wrong in ("", "abc", expected[:-1], expected + "0", "-----BEGIN CERTIFICATE-----\nnothing"):
        with pytest.raises(ConfigurationError, match="SHA-256"):
            FixedPin(wrong)


def test_orders_go_to_the_pinned_gateway_and_its_websocket(portal: Portal, make_portal_broker: Any) -> None:
    broker = make_portal_broker(portal, ca_file="", pin=pin_of(portal), token=TOKEN)
    broker.connect()
    eventually(lambda: broker.health().details["websocket"], "the websocket is open")
    assert broker.place_order(request()).permanent_id
    assert {h.get("x-gateway-token") for h in portal.tap.headers} == {TOKEN}


def test_nothing_reaches_a_gateway_with_another_certificate(portal: Portal, make_portal_broker: Any) -> None:
    write_certificate(portal.folder, "other")
    broker = make_portal_broker(portal, ca_file="", pin=pin_of(portal, "other"), token=TOKEN)
    with pytest.raises(CertificateMismatch, match="another certificate"):
        broker.connect()
    assert (broker.health().ok, broker.health().state) == (False, "certificate_changed")
    assert portal.tap.seen == []


def test_a_certificate_that_changes_gets_nothing_and_people_are_told(
    portal: Portal, relay: Relay, make_portal_broker: Any
) -> None:
    broker = make_portal_broker(portal, url=relay.url, ca_file="", pin=pin_of(portal), token=TOKEN)
    broker.connect()
    eventually(lambda: broker.health().details["websocket"], "the websocket is open")
    with listening() as receiver:
        watch = AlertWatch(broker, Alerts([receiver.url]), every=0.05)
        watch.start()
        relay.replace()
        eventually(lambda: broker.health().state == "certificate_changed", "it is noticed")
        with pytest.raises(CertificateMismatch):
            broker.place_order(request())
        eventually(lambda: relay.tries >= 3, "both HTTP and the websocket are tried again")
        [told] = eventually(lambda: receiver.received, "an alert is sent")
        watch.stop()
    assert relay.heard == [], "not a byte of a request, on either way"
    shown = fingerprint(der(portal.folder / "stranger.pem"))
    assert shown in str(told)
    assert TOKEN not in str(told)
    assert portal.book() == []
    relay.stranger = False
    eventually(lambda: broker.health().ok, "the gateway is back at its address, and so is the link")


def test_the_websocket_makes_the_check_by_itself(portal: Portal, relay: Relay) -> None:
    import websocket

    context = context_for(pin=pin_of(portal))
    address = relay.url.replace("https", "wss") + "/v1/api/ws"
    websocket.create_connection(address, sslopt={"context": context}, timeout=5).close()
    relay.stranger = True
    with pytest.raises(CertificateChanged):
        websocket.create_connection(
            address, sslopt={"context": context}, timeout=5, header={"X-Gateway-Token": TOKEN}
        )
    assert relay.heard == []


# What is certain of a failure


@pytest.mark.parametrize("made", [Wire, OrderWire])
def test_a_handshake_that_fails_has_sent_nothing_and_a_broken_answer_may_have(
    portal: Portal, made: type[Wire]
) -> None:
    """A TLS failure once a request has left is no proof that it didn't arrive."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"https://127.0.0.1:{listener.getsockname()[1]}/v1/api"
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(portal.ca_file, str(portal.folder / "own.key"))

    def answer() -> None:
        plain, _ = listener.accept()
        plain.sendall(b"this is no TLS")
        plain.close()
        plain, _ = listener.accept()
        duplicate = plain.dup()
        secured = server.wrap_socket(plain, server_side=True)
        secured.recv(65536)
        duplicate.sendall(b"\x17\x03\x03\x00\x20" + b"x" * 32)  # a record that can't be deciphered
        duplicate.close()
        secured.close()

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    client = made(url, context_for(portal.ca_file), timeout=5)
    with pytest.raises(Unreachable):
        client.post("iserver/account/DU1/orders", params={"orders": []})
    with pytest.raises(Silence):
        client.post("iserver/account/DU1/orders", params={"orders": []})
    thread.join(5)
    listener.close()


def test_a_cas_file_is_all_that_is_trusted(portal: Portal, tmp_path: Path) -> None:
    """Not the public CAs that requests brings, and not an address that the certificate doesn't name."""
    context = context_for(portal.ca_file)
    client = Wire(portal.url + "/v1/api", context, timeout=5)
    client.get("iserver/auth/status")
    assert context.verify_mode == ssl.CERT_REQUIRED
    assert context.cert_store_stats()["x509"] == 1
    elsewhere = portal.url.replace("127.0.0.1", "localhost") + "/v1/api"
    with pytest.raises(Unreachable, match="isn't the expected one"):
        Wire(elsewhere, context_for(portal.ca_file), timeout=5).get("iserver/auth/status")
    (tmp_path / "empty.pem").write_text("no certificate")
    with pytest.raises(ConfigurationError, match="IBEAM_CA_FILE"):
        context_for(str(tmp_path / "empty.pem"))


def test_the_environment_offers_no_way_around(portal: Portal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", portal.ca_file)
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    write_certificate(portal.folder, "other")
    client = Wire(portal.url + "/v1/api", context_for(str(portal.folder / "other.pem")), timeout=5)
    with pytest.raises(Unreachable):
        client.get("iserver/auth/status")
    assert portal.tap.seen == []


# First seen


def ibeam(portal: Portal, url: str = "") -> BrokerSettings:
    return BrokerSettings(
        broker_type="ibeam", ibeam_url=url or portal.url, ibeam_token=TOKEN, trading_mode="paper"
    )


def test_the_first_certificate_is_pinned_in_the_journals_file(
    portal: Portal, relay: Relay, tmp_path: Path
) -> None:
    file = str(tmp_path / "orders.sqlite")
    settings = ibeam(portal, relay.url)
    for stranger in (False, True, False):
        relay.stranger = stranger
        journal = Journal.in_file(file)  # another process, later
        broker = build_broker(settings, journal)
        try:
            if stranger:
                with pytest.raises(CertificateMismatch):
                    broker.connect()
            else:
                assert broker.connect()
                assert broker.get_account().id == ACCOUNT
        finally:
            broker.disconnect()
    pinned = PinnedCertificates(journal.engine).find(gateway_of(relay.url))
    assert pinned is not None
    assert (pinned.sha256, pinned.pinned_by) == (fingerprint(der(portal.ca_file)), "first seen")
    assert relay.heard == []


def test_an_accepted_certificate_is_taken_by_a_process_that_runs(portal: Portal, journal: Journal) -> None:
    """The gateway was made anew: a person compares the fingerprint, and nothing is started again."""
    settings = ibeam(portal)
    before, _ = write_certificate(portal.folder, "before")
    PinnedCertificates(journal.engine).accept(gateway_of(portal.url), der(before), "ada")
    broker = build_broker(settings, journal)
    try:
        with pytest.raises(CertificateMismatch):
            broker.connect()
        found = look(settings, journal)
        assert (found.pinned, found.shown) == (fingerprint(der(before)), fingerprint(der(portal.ca_file)))
        with pytest.raises(InvalidRequest, match=found.shown):
            accept(settings, journal, "0" * 64, "ada")
        with pytest.raises(InvalidRequest, match="64 hex digits"):
            accept(settings, journal, "yes", "ada")
        assert look(settings, journal) == found
        assert portal.tap.seen == []
        assert accept(settings, journal, found.shown, "ada").pinned_by == "ada"
        eventually(lambda: broker.health().ok, "it connects by itself")
    finally:
        broker.disconnect()


def test_what_was_replaced_is_refused_soon(
    portal: Portal, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key may be in other hands, and processes that run know it."""
    monkeypatch.setattr(tls, "KNOWN_SECONDS", 0.0)
    kept, (newer, _) = PinnedCertificates(journal.engine), write_certificate(portal.folder, "newer")
    pin = KeptPin(kept, portal.url)
    pin.check(der(portal.ca_file))
    pin.check(der(portal.ca_file))
    kept.accept(gateway_of(portal.url), der(newer), "ada")
    with pytest.raises(CertificateChanged):
        pin.check(der(portal.ca_file))
    pin.check(der(newer))


def test_who_cant_be_asked_about_is_refused(portal: Portal, journal: Journal) -> None:
    """Without the database nobody knows which certificate is right: no connection, and nothing unclear."""
    with journal.engine.begin() as db:
        db.exec_driver_sql("drop table gateway_certificates")
    client = OrderWire(
        portal.url + "/v1/api",
        context_for(pin=KeptPin(PinnedCertificates(journal.engine), portal.url)),
        token=TOKEN,
    )
    with pytest.raises(Unreachable, match="pinned certificates can't be used"):
        client.post("iserver/account/DU1/orders", params={"orders": []})
    assert portal.tap.seen == []


def test_what_has_no_pin_says_so(portal: Portal, journal: Journal) -> None:
    with pytest.raises(ConfigurationError, match="BROKER_TYPE=ibeam"):
        look(BrokerSettings(broker_type="alpaca"), journal)
    with pytest.raises(ConfigurationError, match="IBEAM_CA_FILE decides"):
        look(BrokerSettings(broker_type="ibeam", ibeam_url=portal.url, ibeam_ca_file="x"), journal)
    with pytest.raises(NotConnected, match="shows no certificate"):
        look(ibeam(portal, "https://127.0.0.1:9"), journal)
    with pytest.raises(ConfigurationError, match="IBEAM_TOKEN"):
        build_broker(BrokerSettings(broker_type="ibeam", ibeam_url=portal.url), journal)


def test_what_ibind_gets_wrong_is_what_this_replaces() -> None:
    """The names of ibind's own that the websocket's context is put into: a new version may move them."""
    from ibind import IbkrWsClient

    client = IbkrWsClient(ibkr_client=wire.IbkrClient(url="https://h/"), cacert=False, url="wss://h/")
    assert client._runtime._transport._sslopt == {"cert_reqs": ssl.CERT_NONE}


def test_the_error_of_a_handshake_is_one_of_ssl() -> None:
    assert issubclass(HandshakeFailed, ssl.SSLError), "urllib3 lets no other kind pass"
    assert not issubclass(HandshakeFailed, requests.exceptions.RequestException)
