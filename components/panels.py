"""What the dashboard shows, as data, and Google's JSON for it.

A panel is a chart or a number with PromQL queries. The names that they ask for are those that the service
tells (`Told`), that the gateway VM publishes (`gateway_metric`), and Google's own for Cloud Run, Cloud SQL
and the Ops Agent; tests/stacks/test_dashboard.py holds the first two against what is really published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from components import log_metrics
from components.observability import series

# A mosaic of 48 columns; a panel is a third of it wide.
COLUMNS, WIDTH, HEIGHT, HEADING = 48, 16, 14, 4
_PER_ROW = COLUMNS // WIDTH


@dataclass(frozen=True, slots=True)
class Panel:
    """A chart with a line for each query's series, or, as `number`, one figure.

    `lines` are queries by what their series are called; `{{label}}` in it is the series' own label.
    `low` and `high` are where a figure turns red.
    """

    title: str
    lines: dict[str, str]
    unit: str = ""
    kind: Literal["chart", "number"] = "chart"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Section:
    """Panels that belong together, under a heading."""

    title: str
    says: str
    panels: Sequence[Panel] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Watched:
    """What there is to show: names as they are declared. `database` is "project:instance"."""

    prefix: str
    service: str
    database: str
    gateway: bool
    fleet: bool
    uptime_check: str | None


def sections(watched: Watched) -> list[Section]:
    """The dashboard's sections, for what there is."""
    told, run = Told(watched.prefix), _CloudRun(watched.service)
    found = [_gateway()] if watched.gateway else []
    found += [_connections(told), _orders(watched.prefix)]
    if watched.fleet:
        found += [_fleet(told), _reconciler(told)]
    return [*found, _service(run, watched.uptime_check), _database(watched.database)]


class Told:
    """Queries over what the service tells of itself."""

    def __init__(self, prefix: str) -> None:
        self._series = series(log_metrics.metric_name(prefix, log_metrics.TOLD))

    def now(self, name: str, by_label: bool = False) -> str:
        """A gauge: the mean of what was told lately, which is each five minutes."""
        total, count = (self._added(of, name, "10m", by_label) for of in ("sum", "count"))
        return f"{total} / {count}"

    def added(self, name: str, by_label: bool = False, minutes: int = 10) -> str:
        """A counter: what was added in so many minutes."""
        return self._added("sum", name, f"{minutes}m", by_label)

    def _added(self, of: str, name: str, window: str, by_label: bool) -> str:
        by = "sum by (label)" if by_label else "sum"
        return f'{by}(increase({self._series}_{of}{{name="{name}"}}[{window}]))'


class _CloudRun:
    """Queries over Cloud Run's own metrics of one service."""

    def __init__(self, service: str) -> None:
        self._chosen = f'monitored_resource="cloud_run_revision",service_name="{service}"'

    def requests(self) -> str:
        return f"sum by (response_code_class)(rate(run_googleapis_com:request_count{{{self._chosen}}}[5m]))"

    def instances(self) -> str:
        return f"sum by (state)(run_googleapis_com:container_instance_count{{{self._chosen}}})"

    def highest(self, metric: str) -> str:
        """The 95th percentile of one of its distributions."""
        buckets = f"run_googleapis_com:container_{metric}_bucket{{{self._chosen}}}"
        return f"histogram_quantile(0.95, sum by (le)(increase({buckets}[5m])))"


def gateway_metric(name: str, window: str = "3m") -> str:
    """The highest that the gateway VM's probe has published lately (cloud-init/files/gateway/health)."""
    return f"max by (mode)(max_over_time(custom_googleapis_com:ibkr_gateway_{name}[{window}]))"


def _gateway() -> Section:
    # The project's only VM with an Ops Agent.
    used = 'monitored_resource="gce_instance",state="used"'
    return Section(
        "Gateway",
        "IB Gateway on its VM, looked at every minute. Away in the night by IBKR's reset: docs/runbooks.md.",
        (
            Panel("Answers from IBKR", {"all": f"min({gateway_metric('healthy')})"}, kind="number", low=1),
            Panel("API handshake", {"all": f"min({gateway_metric('handshake')})"}, kind="number", low=1),
            Panel(
                "Waiting for the second factor",
                {"longest": f"max({gateway_metric('second_factor_waiting_seconds')})"},
                "s",
                "number",
                high=0,
            ),
            Panel(
                "Health over time",
                {
                    "answers {{mode}}": gateway_metric("healthy"),
                    "handshake {{mode}}": gateway_metric("handshake"),
                    "session taken {{mode}}": gateway_metric("session_taken"),
                },
            ),
            Panel("Restarts by the watchdog", {"{{mode}}": gateway_metric("watchdog_restarts")}),
            Panel(
                "Memory of the VM",
                {
                    "used": f"max(agent_googleapis_com:memory_percent_used{{{used}}})",
                    "swap": f"max(agent_googleapis_com:swap_percent_used{{{used}}})",
                },
                "%",
            ),
        ),
    )


def _connections(told: Told) -> Section:
    return Section(
        "Connections",
        "The service's own broker, users' gateways, and what is held open.",
        (
            Panel(
                "Broker connected",
                {"connected": told.now("broker_connected")},
                kind="number",
                low=1,
            ),
            Panel("Users' gateways connected", {"gateways": told.now("broker_user_connections")}),
            Panel(
                "Open pages and streams",
                {
                    "open": told.now("api_open_streams"),
                    "refused, {{label}}": told.added("api_refused_streams_total", by_label=True),
                },
            ),
        ),
    )


def _orders(prefix: str) -> Section:
    orders = series(log_metrics.metric_name(prefix, log_metrics.ORDERS))
    requests = series(log_metrics.metric_name(prefix, log_metrics.REQUESTS))
    return Section(
        "Orders and latencies",
        "201: taken. 422: refused. 504: outcome unknown, look at the account before another order is sent.",
        (
            Panel("Orders in 5 minutes", {"{{status}}": f"sum by (status)(increase({orders}_count[5m]))"}),
            Panel("Latency of orders", percentiles(orders), "ms"),
            Panel("Latency of all calls", percentiles(requests), "ms"),
        ),
    )


def percentiles(metric: str) -> dict[str, str]:
    """Half, most, and nearly all requests."""
    found = f"sum by (le)(increase({metric}_bucket[5m]))"
    return {f"p{share:g}": f"histogram_quantile({share / 100:g}, {found})" for share in (50, 95, 99)}


def _fleet(told: Told) -> Section:
    return Section(
        "Fleet",
        "Users' accounts and their droplets.",
        (
            Panel("Accounts by status", {"{{label}}": told.now("fleet_accounts", by_label=True)}),
            Panel("Droplets by status", {"{{label}}": told.now("fleet_droplets", by_label=True)}),
            Panel(
                "From connect to running",
                {
                    "mean of an hour": (
                        f"{told.added('fleet_provisioning_seconds_sum', minutes=60)} / "
                        f"{told.added('fleet_provisioning_seconds_count', minutes=60)}"
                    )
                },
                "s",
            ),
        ),
    )


def _reconciler(told: Told) -> Section:
    return Section(
        "Reconciler",
        "Its passes, and the calls that DigitalOcean has left for this hour.",
        (
            Panel(
                "Passes",
                {
                    "in 10 minutes": told.added("fleet_pass_seconds_count"),
                    "kept from work, {{label}}": told.added("fleet_pass_problems_total", by_label=True),
                },
            ),
            Panel(
                "Duration of a pass",
                {
                    "mean": (
                        f"{told.added('fleet_pass_seconds_sum')} / {told.added('fleet_pass_seconds_count')}"
                    )
                },
                "s",
            ),
            Panel("DigitalOcean calls left", {"calls": told.now("fleet_digitalocean_calls_left")}),
            Panel("In quarantine", {"droplets": told.now("fleet_quarantined")}, kind="number", high=0),
            Panel(
                "Deletions held back",
                {"droplets": told.now("fleet_deletions_held_back")},
                kind="number",
                high=0,
            ),
            Panel(
                "Logins that IBKR refused",
                {"in an hour": told.added("fleet_failed_logins_total", minutes=60)},
            ),
        ),
    )


def _service(run: _CloudRun, uptime_check: str | None) -> Section:
    passed = f'monitoring_googleapis_com:uptime_check_check_passed{{check_id="{uptime_check}"}}'
    outside = (
        [Panel("Reached from outside", {"share of the checkers": f"avg({passed})"}, "", "number", low=0.5)]
        if uptime_check
        else []
    )
    return Section(
        "Cloud Run",
        "Each open page holds one request (docs/scale.md).",
        (
            Panel("Requests a second", {"{{response_code_class}}": run.requests()}),
            Panel("Instances", {"{{state}}": run.instances()}),
            Panel(
                "Used of an instance",
                {"CPU": run.highest("cpu_utilizations"), "memory": run.highest("memory_utilizations")},
            ),
            Panel("Requests at a time", {"of an instance": run.highest("max_request_concurrencies")}),
            *outside,
        ),
    )


def _database(database: str) -> Section:
    chosen = f'monitored_resource="cloudsql_database",database_id="{database}"'

    def now(metric: str) -> str:
        return f"avg(cloudsql_googleapis_com:database_{metric}{{{chosen}}})"

    return Section(
        "Database",
        "Cloud SQL. Connections beyond the tier's limit are refused (docs/scale.md).",
        (
            Panel(
                "Used of the instance",
                {
                    "CPU": now("cpu_utilization"),
                    "memory": now("memory_utilization"),
                    "disk": now("disk_utilization"),
                },
            ),
            Panel(
                "Connections",
                {"connections": f"sum(cloudsql_googleapis_com:database_postgresql_num_backends{{{chosen}}})"},
            ),
            Panel("Is up", {"up": now("up")}, kind="number", low=1),
        ),
    )


def dashboard(title: str, labels: Sequence[str], shown: Sequence[Section]) -> dict[str, Any]:
    """The dashboard as Google's API takes it (monitoring v1, projects.dashboards)."""
    tiles: list[dict[str, Any]] = []
    top = 0
    for section in shown:
        heading = {"subtitle": section.says, "dividerBelow": True}
        tiles.append(_tile(0, top, COLUMNS, HEADING, {"title": section.title, "sectionHeader": heading}))
        top += HEADING
        for at, panel in enumerate(section.panels):
            row, column = divmod(at, _PER_ROW)
            tiles.append(_tile(column * WIDTH, top + row * HEIGHT, WIDTH, HEIGHT, _widget(panel)))
        top += -(-len(section.panels) // _PER_ROW) * HEIGHT
    return {
        "displayName": title,
        "labels": dict.fromkeys(labels, ""),
        "mosaicLayout": {"columns": COLUMNS, "tiles": tiles},
    }


def _tile(x: int, y: int, width: int, height: int, widget: dict[str, Any]) -> dict[str, Any]:
    return {"xPos": x, "yPos": y, "width": width, "height": height, "widget": widget}


def _widget(panel: Panel) -> dict[str, Any]:
    unit = {"unitOverride": panel.unit} if panel.unit else {}
    queries = {name: {"prometheusQuery": query, **unit} for name, query in panel.lines.items()}
    if panel.kind == "number":
        [query] = queries.values()
        limits = [(panel.low, "BELOW"), (panel.high, "ABOVE")]
        thresholds = [
            {"value": limit, "direction": direction, "color": "RED"}
            for limit, direction in limits
            if limit is not None
        ]
        spark = {"sparkChartType": "SPARK_LINE"}
        figure = {"timeSeriesQuery": query, "thresholds": thresholds, "sparkChartView": spark}
        return {"title": panel.title, "scorecard": figure}
    sets = [
        {"timeSeriesQuery": query, "plotType": "LINE", "targetAxis": "Y1", "legendTemplate": legend(name)}
        for name, query in queries.items()
    ]
    return {"title": panel.title, "xyChart": {"dataSets": sets, "yAxis": {"scale": "LINEAR"}}}


def legend(name: str) -> str:
    """A series' name as Google's legends write it: `${label}` for a label's value."""
    return name.replace("{{", "${metric.labels.").replace("}}", "}")
