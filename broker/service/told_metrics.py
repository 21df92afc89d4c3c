"""Metrics in the log, each five minutes, for who has no Prometheus: Cloud Logging makes time series of the
lines.

    {"event": "metric", "name": "fleet_accounts", "label": "running", "value": 12.0, ...}

Nothing on Cloud Run reads `/metrics`, and an agent beside the service would need a token and a share of its
processor. `components/log_metrics.py` declares what counts these lines, and the dashboard shows it.

A gauge is told as it is, a counter as what was added since it was told last. What another instance knows
better isn't told: the fleet's are, by the one that has run a pass since.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator

import structlog
from prometheus_client import CollectorRegistry

from broker.models import Health
from broker.service.metrics import ServiceMetrics

log = structlog.get_logger("broker.service.metrics")

#: each series costs with each line (docs/cost.md), so not every minute
EVERY_SECONDS = 300.0
LOOK_SECONDS = 30.0
#: by sample: the label that is told; samples are added up over their other labels, since each series costs
TOLD = {
    "broker_connected": "broker",
    "broker_user_connections": "",
    "api_open_streams": "",
    "api_refused_streams_total": "status",
    "api_refused_tokens_total": "error",
    "fleet_accounts": "status",
    "fleet_droplets": "status",
    "fleet_digitalocean_calls_left": "",
    "fleet_quarantined": "",
    "fleet_deletions_held_back": "",
    "fleet_failed_logins_total": "",
    "fleet_provisioning_seconds_count": "",
    "fleet_provisioning_seconds_sum": "",
    "fleet_pass_seconds_count": "",
    "fleet_pass_seconds_sum": "",
    "fleet_pass_problems_total": "reason",
}
_ADDED_UP = ("_total", "_count", "_sum")
_PASSES = ("fleet_pass_seconds_count", "")

Series = tuple[str, str]


class ToldMetrics:
    """Tells the log what some registries hold."""

    def __init__(self, registries: Iterable[CollectorRegistry]) -> None:
        self._registries = tuple(registries)
        self._last: dict[Series, float] = {}

    def tell(self) -> None:
        """Write a line for each series that has something to tell."""
        for (name, label), value in self._news():
            log.info("metric", name=name, label=label, value=value)

    def _news(self) -> Iterator[tuple[Series, float]]:
        now = self._read()
        added = {
            series: value - self._last.get(series, 0.0)
            for series, value in now.items()
            if series[0].endswith(_ADDED_UP)
        }
        self._last = {series: now[series] for series in added}
        for series, value in now.items():
            if series[0].startswith("fleet_") and not added.get(_PASSES):
                continue
            if series not in added:
                yield series, value
            elif added[series]:
                yield series, added[series]

    def _read(self) -> dict[Series, float]:
        found: dict[Series, float] = defaultdict(float)
        for registry in self._registries:
            for family in registry.collect():
                for sample in family.samples:
                    if sample.name in TOLD:
                        found[sample.name, sample.labels.get(TOLD[sample.name], "")] += sample.value
        return found


async def keep_telling(
    told: ToldMetrics, own: ServiceMetrics, broker: str, health: Callable[[], Awaitable[Health]]
) -> None:
    """Look at the link to the service's own broker and tell all, until cancelled."""
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                own.looked(broker, await health())
            told.tell()
        except Exception:
            log.exception("the metrics can't be told now")
