"""Values that the shipped templates take."""

from __future__ import annotations

from typing import Any

PAPER = {
    "mode": "paper",
    "credentials_version": "projects/p/secrets/ibkr-gateway-credentials/versions/1",
    "api_port": "4002",
    "local_api_port": "14002",
    "command_port": "7462",
    "display": ":2",
    "second_factor_device": "",
}
LIVE = {
    "mode": "live",
    "credentials_version": "projects/p/secrets/ibkr-gateway-credentials-live/versions/1",
    "api_port": "4001",
    "local_api_port": "14001",
    "command_port": "7461",
    "display": ":1",
    "second_factor_device": "IB Key",
}
GATEWAY: dict[str, Any] = {
    "settings_device": "ibkr-settings",
    "gateway_version": "1045",
    "gateway_sha256": "7f4dadfd0e50b03684f824742503ee0d9050eadbfc117cfbbe920885b53b4a92",
    "gateway_source": "https://download2.example/ibgateway-stable-standalone-linux-x64.sh",
    "ibc_version": "3.24.2",
    "ibc_sha256": "5649adbe44f2db2409debf366747d0140f6b4c1fa996eea28fe0a48428c1b595",
    "ibc_source": "https://github.example/IBCLinux-3.24.2.zip",
    "read_only_api": "no",
    "auto_restart_time": "11:45 PM",
    "cold_restart_time": "13:00",
    "time_zone": "America/New_York",
    "gateways": [PAPER],
    "ops_agent": [],
}
LIVE_GATEWAY: dict[str, Any] = {
    **GATEWAY,
    "gateway_source": "gs://a-private-bucket/ibgateway/10.45.sh",
    "read_only_api": "yes",
    "gateways": [LIVE],
}
BOTH_GATEWAYS: dict[str, Any] = {
    **GATEWAY,
    "gateways": [PAPER, LIVE],
    "ops_agent": [{"keys": "35BAA0B33E9EB396F59CA838C0BA5CE6DC6315A3"}],
}
NASTY_PASSWORDS = [
    "plain-password",
    'it\'s "quoted"',
    "back\\slash\\",
    "sl/ash & amp",
    "$dollar ${username} $(reboot) `reboot`",
    "# not a comment; [nor] {this}: *x !y %z @a |b >c",
    " leading and trailing ",
    "tab\there",
    "ümläut 日本語 😀",
    "= : key=value",
    "two\nlines",
]
"""Each has broken some way of putting a password into a file: sed, a shell, YAML, properties, an env file."""
