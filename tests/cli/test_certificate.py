"""`python -m broker accept-certificate`: a person looks at a gateway's certificate, and accepts a new one."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from broker.cli.exits import Exit
from broker.journal import Journal
from broker.pins import PinnedCertificates, gateway_of
from tests.broker.portal_gateway import ACCOUNT, portal_gateway, write_certificate
from tests.cli.conftest import Run


def test_another_certificate_is_shown_refused_and_accepted_by_its_fingerprint(
    run: Run, environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with portal_gateway() as portal:
        environment.setenv("BROKER_TYPE", "ibeam")
        environment.setenv("IBEAM_URL", portal.url)
        environment.setenv("IBEAM_TOKEN", "a-token-nobody-else-may-see")
        environment.setenv("IBKR_TRADING_MODE", "paper")
        before = run("accept-certificate", "--json")
        assert (before.code, before.document["certificate"]["pinned"]) == (Exit.OK, "")
        assert run("account", "--json").document["account"]["id"] == ACCOUNT
        assert "as pinned" in run("accept-certificate").out

        other, _ = write_certificate(tmp_path, "other")
        kept = PinnedCertificates(Journal.in_file(str(tmp_path / "orders.sqlite")).engine)
        kept.accept(gateway_of(portal.url), ssl.PEM_cert_to_DER_cert(other.read_text()), "a test")
        refused = run("account", "--json")
        assert (refused.code, refused.error["kind"]) == (Exit.NOT_CONNECTED, "certificate-mismatch")
        assert "another certificate" in refused.error["message"]
        looked = run("accept-certificate", "--json")
        shown = looked.document["certificate"]["shown"]
        assert (looked.code, shown) == (Exit.NOT_CONFIRMED, before.document["certificate"]["shown"])
        assert run("accept-certificate", "f" * 64, "--json").code == Exit.USAGE
        assert run("accept-certificate", "what", "--json").error["kind"] == "invalid-request"
        assert run("account", "--json").code == Exit.NOT_CONNECTED, "looking and slips change nothing"
        accepted = run("accept-certificate", shown, "--by", "ada", "--json")
        assert (accepted.code, accepted.document["certificate"]["pinned_by"]) == (Exit.OK, "ada")
        assert run("account", "--json").document["account"]["id"] == ACCOUNT


def test_where_nothing_is_pinned_there_is_nothing_to_accept(run: Run) -> None:
    found = run("accept-certificate", "--json")
    assert (found.code, found.error["kind"]) == (Exit.USAGE, "configuration")
