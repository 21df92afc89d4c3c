"""Cloud Run's health checks, made on the instance's Unix socket."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Defaults of the real probes: docs.cloud.google.com/run/docs/configuring/healthchecks. Without a
# declared startup probe, Cloud Run waits up to four minutes for the port to open.
_DEFAULT_STARTUP: Mapping[str, Any] = {"periodSeconds": 240, "failureThreshold": 1, "timeoutSeconds": 240}
_LOOK_EVERY_SECONDS = 0.1


def startup_seconds(probe: Mapping[str, Any] | None) -> float:
    """How long an instance may take until its startup probe has to have succeeded."""
    declared = probe or _DEFAULT_STARTUP
    period, threshold = float(declared.get("periodSeconds") or 10), int(declared.get("failureThreshold") or 3)
    return float(declared.get("initialDelaySeconds") or 0) + period * threshold


async def started(probe: Mapping[str, Any] | None, socket: Path) -> bool:
    """Wait for the startup probe to succeed; False when its time is over.

    It looks more often than the declared period: the time allowed stays the declared one, and a
    laptop needn't wait for the next full period.
    """
    try:
        async with asyncio.timeout(startup_seconds(probe)):
            while not await succeeds(probe or _DEFAULT_STARTUP, socket):  # noqa: ASYNC110
                await asyncio.sleep(_LOOK_EVERY_SECONDS)
    except TimeoutError:
        return False
    return True


async def until_unhealthy(probe: Mapping[str, Any], socket: Path) -> None:
    """Probe for liveness; return when it has failed as often in a row as is declared."""
    failures = 0
    await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
    while failures < int(probe.get("failureThreshold") or 3):
        await asyncio.sleep(float(probe.get("periodSeconds") or 10))
        failures = 0 if await succeeds(probe, socket) else failures + 1


async def succeeds(probe: Mapping[str, Any], socket: Path) -> bool:
    """One probe: an HTTP status from 200 to 399, or, for a TCP probe, a connection."""
    try:
        async with asyncio.timeout(float(probe.get("timeoutSeconds") or 1)):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                if probe.get("httpGet") is None:
                    return True
                writer.write(_request(probe["httpGet"]))
                status = (await reader.readline()).split()
                return len(status) > 1 and 200 <= int(status[1]) < 400
            finally:
                writer.close()
    except (OSError, TimeoutError, ValueError):
        return False


def _request(get: Mapping[str, Any]) -> bytes:
    headers = [f"{header['name']}: {header.get('value', '')}" for header in get.get("httpHeaders") or ()]
    lines = [f"GET {get.get('path') or '/'} HTTP/1.1", "Host: localhost", "Connection: close", *headers]
    return ("\r\n".join([*lines, "User-Agent: GoogleHC/1.0", "", ""])).encode()
