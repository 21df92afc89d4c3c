"""Origins of web pages elsewhere that may call the API, as they are configured.

An origin is what a browser sends in `Origin`: scheme, host, and the port unless it is the scheme's own
(WHATWG URL, "origin"). The service's environment and the stacks' configuration are checked by the same rules;
nothing here needs more than the standard library, which the infrastructure program counts on.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address
from urllib.parse import urlsplit

_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*|\[[0-9a-f:.]+\]")
_OWN_PORTS = {"https": 443, "http": 80}


def check_origin(value: str) -> str:
    """The origin, if a browser would write it like that. Raises ValueError with what to write instead."""
    if "*" in value:
        raise ValueError(
            "write every origin out, not *: whatever page a trader has open could then ask this API for what "
            "a token allows, and bearer tokens and session cookies are in that browser"
        )
    if value.lower() == "null":
        raise ValueError("null is what sandboxed pages and files of anybody send: name the page's own origin")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        raise ValueError(_form(value)) from None
    if parts.username is not None or parts.password is not None:
        raise ValueError("an origin has no user name or password (not shown): write https://app.example.com")
    host = parts.netloc.rpartition(":")[0] if port is not None else parts.netloc
    exact = f"{parts.scheme}://{parts.netloc}"
    if parts.scheme not in _OWN_PORTS or not _HOST.fullmatch(host.lower()):
        raise ValueError(_form(value))
    if value != exact or value != value.lower():
        raise ValueError(f"{_shown(value)} isn't how a browser writes it: write {exact.lower()}")
    if port == _OWN_PORTS[parts.scheme] or parts.netloc.endswith(":"):
        raise ValueError(f"browsers leave out a scheme's own port: write {parts.scheme}://{host.rstrip(':')}")
    if parts.scheme == "http" and not _is_loopback(host):
        raise ValueError(
            f"{_shown(value)} isn't encrypted, so anybody on its way could put a script into the page that "
            f"takes the tokens: use https (http is for this machine only, http://localhost:5173)"
        )
    return value


def split_origins(value: object) -> object:
    """A list as an environment variable has it: with commas or spaces between."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _form(value: str) -> str:
    return f"{_shown(value)} isn't an origin: write scheme and host, such as https://app.example.com"


def _shown(value: str) -> str:
    text = ascii(value)
    return text if len(text) <= 100 else text[:97] + "..."


def _is_loopback(host: str) -> bool:
    if host in ("localhost", "[::1]") or host.endswith(".localhost"):
        return True
    try:
        return IPv4Address(host).is_loopback
    except AddressValueError:
        return False
