"""IBC's config.ini is a Java properties file: what arrives of what was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from localcloud.gateways.tws.ibc import parse_properties, read_settings


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("IbPassword=secret", "secret"),
        ("IbPassword = secret", "secret"),
        ("IbPassword:secret", "secret"),
        ("IbPassword secret", "secret"),
        ("  IbPassword=secret  ", "secret  "),
        (r"IbPassword=a\\b", r"a\b"),
        (r"IbPassword=a\b", "ab"),
        (r"IbPassword=\ leading", " leading"),
        ("IbPassword=#!=: kept", "#!=: kept"),
        (r"IbPassword=tab\there\u00e9", "tab\there\u00e9"),
        ("IbPassword=two\\\n   lines", "twolines"),
        ("# IbPassword=no\n! IbPassword=no\nIbPassword=yes", "yes"),
        ("IbPassword=first\nIbPassword=last", "last"),
        ("IbPassword", ""),
    ],
)
def test_a_value_is_read_as_java_reads_it(text: str, expected: str) -> None:
    assert parse_properties(text)["IbPassword"] == expected


def test_a_malformed_unicode_escape_is_an_error() -> None:
    with pytest.raises(ValueError, match="Malformed"):
        parse_properties(r"IbPassword=\u12g4")


def test_utf_8_in_the_file_is_mangled_as_in_life(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("IbLoginId=demo\nIbPassword=\u00e9\n", "utf-8")
    assert read_settings(path, "paper").password == "\u00c3\u00a9"


def test_settings_are_read_and_the_password_is_never_shown(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text(
        "IbLoginId=demo\nIbPassword=secret\nTradingMode=paper\nReadOnlyApi=yes\nOverrideTwsApiPort=14002\n"
    )
    settings = read_settings(path)
    assert (settings.username, settings.mode, settings.read_only, settings.port) == (
        "demo",
        "paper",
        True,
        14002,
    )
    assert "secret" not in repr(settings)
    assert read_settings(path, "live").mode == "live"


def test_a_wrong_mode_or_port_is_said(tmp_path: Path) -> None:
    path = tmp_path / "config.ini"
    path.write_text("TradingMode=demo\n")
    with pytest.raises(ValueError, match="live or paper"):
        read_settings(path)
    path.write_text("TradingMode=paper\nOverrideTwsApiPort=http\n")
    with pytest.raises(ValueError, match="port number"):
        read_settings(path)
