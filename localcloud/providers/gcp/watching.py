"""Cloud Monitoring's dashboards and uptime checks: what the real APIs refuse. Nothing is drawn or asked
here.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from typing import Any

from localcloud.cloud import CloudError
from localcloud.providers.gcp.base import GcpHandler
from localcloud.providers.gcp.monitoring import POLICY, verify_query
from localcloud.providers.resource import digest, number
from localcloud.providers.schema import Failure
from localcloud.providers.values import UNKNOWN
from localcloud.secrets import PROJECT_NUMBER
from localcloud.state import Resource

DASHBOARD = "gcp:monitoring/dashboard:Dashboard"
UPTIME_CHECK = "gcp:monitoring/uptimeCheckConfig:UptimeCheckConfig"

# The API's v1, projects.dashboards: Dashboard, MosaicLayout, Widget.
_LAYOUTS = ("gridLayout", "mosaicLayout", "rowLayout", "columnLayout")
_DASHBOARD_FIELDS = frozenset(
    (*_LAYOUTS, "name", "displayName", "etag", "dashboardFilters", "labels", "annotations")
)
_WIDGETS = frozenset(
    [
        "xyChart",
        "scorecard",
        "text",
        "blank",
        "alertChart",
        "timeSeriesTable",
        "collapsibleGroup",
        "logsPanel",
        "incidentList",
        "pieChart",
        "treemap",
        "errorReportingPanel",
        "sectionHeader",
        "singleViewGroup",
    ]
)
_QUERIES = (
    "timeSeriesFilter",
    "timeSeriesFilterRatio",
    "timeSeriesQueryLanguage",
    "prometheusQuery",
    "opsAnalyticsQuery",
)
_PLOTS = frozenset(("LINE", "STACKED_AREA", "STACKED_BAR", "HEATMAP"))
_MOST_COLUMNS, _MOST_WIDGETS = 48, 100
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?")
_PERIODS = ("60s", "300s", "600s", "900s")


def _bad(message: str) -> CloudError:
    return CloudError(400, message, "badRequest")


def _field(path: str, said: str) -> CloudError:
    return _bad(f"Field {path} has an invalid value: {said}")


class Dashboard(GcpHandler):
    """A dashboard."""

    token = DASHBOARD
    noun = "Dashboard"

    def identify(self, inputs: dict[str, Any]) -> str:
        return f"projects/{PROJECT_NUMBER}/dashboards/{digest(inputs['project'], time.time_ns())}"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        text = inputs.get("dashboardJson")
        if isinstance(text, str):
            try:
                json.loads(text)
            except ValueError as wrong:
                yield Failure("dashboardJson", f'"dashboard_json" contains an invalid JSON: {wrong}')

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        document = json.loads(inputs["dashboardJson"])
        unknown = document.keys() - _DASHBOARD_FIELDS
        if unknown:
            raise _bad(
                f"Invalid JSON payload received. Unknown name \"{min(unknown)}\" at 'dashboard': Cannot find "
                "field."
            )
        if not document.get("displayName"):
            raise _field("displayName", "a display name is required")
        layouts = [name for name in _LAYOUTS if name in document]
        if len(layouts) != 1:
            raise _field("layout", f"a dashboard has exactly one layout, and this has {layouts or 'none'}")
        if layouts == ["mosaicLayout"]:
            _verify_mosaic(document["mosaicLayout"])


def _verify_mosaic(layout: dict[str, Any]) -> None:
    columns, tiles = int(layout.get("columns", 0)), layout.get("tiles") or []
    if not 1 <= columns <= _MOST_COLUMNS:
        raise _field("mosaicLayout.columns", f"from 1 to {_MOST_COLUMNS}")
    if len(tiles) > _MOST_WIDGETS:
        raise _field("mosaicLayout.tiles", f"a dashboard has {_MOST_WIDGETS} widgets at most")
    taken: dict[tuple[int, int], int] = {}
    for at, tile in enumerate(tiles):
        path = f"mosaicLayout.tiles[{at}]"
        x, y = int(tile.get("xPos", 0)), int(tile.get("yPos", 0))
        width, height = int(tile.get("width", 0)), int(tile.get("height", 0))
        if width < 1 or height < 1 or x < 0 or y < 0 or x + width > columns:
            raise _field(path, f"{width}x{height} at {x},{y} doesn't fit into {columns} columns")
        for cell in ((column, row) for column in range(x, x + width) for row in range(y, y + height)):
            if taken.setdefault(cell, at) != at:
                raise _field(path, f"it overlaps tiles[{taken[cell]}]")
        _verify_widget(f"{path}.widget", tile.get("widget") or {})


def _verify_widget(path: str, widget: dict[str, Any]) -> None:
    kinds = [name for name in widget if name in _WIDGETS]
    unknown = widget.keys() - _WIDGETS - {"title", "id", "visibilityCondition"}
    if unknown:
        raise _bad(f"Invalid JSON payload received. Unknown name \"{min(unknown)}\" at '{path}'")
    if len(kinds) != 1:
        raise _field(path, f"a widget has exactly one kind of content, and this has {kinds or 'none'}")
    content = widget[kinds[0]]
    if kinds[0] == "scorecard":
        _verify_time_series(f"{path}.scorecard", content)
    if kinds[0] == "xyChart":
        if not content.get("dataSets"):
            raise _field(f"{path}.xyChart.dataSets", "a chart has at least one")
        for at, data in enumerate(content["dataSets"]):
            _verify_time_series(f"{path}.xyChart.dataSets[{at}]", data)
            if data.get("plotType", "LINE") not in _PLOTS:
                raise _field(f"{path}.xyChart.dataSets[{at}].plotType", f"one of {', '.join(sorted(_PLOTS))}")


def _verify_time_series(path: str, data: dict[str, Any]) -> None:
    query = data.get("timeSeriesQuery") or {}
    given = [name for name in _QUERIES if query.get(name)]
    if len(given) != 1:
        raise _field(f"{path}.timeSeriesQuery", f"exactly one query, and this has {given or 'none'}")
    if given == ["prometheusQuery"]:
        verify_query(f"{path}.timeSeriesQuery.prometheusQuery", query["prometheusQuery"])


class UptimeCheck(GcpHandler):
    """A look at an address from outside."""

    token = UPTIME_CHECK
    noun = "UptimeCheckConfig"

    def identify(self, inputs: dict[str, Any]) -> str:
        return f"projects/{inputs['project']}/uptimeCheckConfigs/{_slug(inputs['displayName'])}-{_mark()}"

    def check(self, inputs: dict[str, Any]) -> Iterator[Failure]:
        yield from super().check(inputs)
        kinds = [name for name in ("httpCheck", "tcpCheck", "syntheticMonitor") if inputs.get(name)]
        if len(kinds) != 1 and not any(inputs.get(name) is UNKNOWN for name in ("httpCheck", "tcpCheck")):
            said = f"exactly one of httpCheck, tcpCheck and syntheticMonitor, and there is {kinds or 'none'}"
            yield Failure("httpCheck", said)

    def verify(self, inputs: dict[str, Any], old: Resource | None) -> None:
        self.verify_labels(inputs.get("userLabels") or {})
        if not inputs["displayName"]:
            raise _field("uptime_check_config.display_name", "it must not be empty")
        period = inputs.get("period") or "300s"
        if period not in _PERIODS:
            raise _field("uptime_check_config.period", f'"{period}": one of {", ".join(_PERIODS)}')
        timeout = re.fullmatch(r"(\d+)s", inputs["timeout"])
        if not timeout or not 1 <= int(timeout[1]) <= 60:
            raise _field("uptime_check_config.timeout", f'"{inputs["timeout"]}": from 1 to 60 seconds')
        regions = inputs.get("selectedRegions") or []
        if regions and "USA" not in regions and len(set(regions)) < 3:
            raise _field("uptime_check_config.selected_regions", "they must have at least 3 locations")
        resource = inputs.get("monitoredResource") or {}
        if resource.get("type") == "uptime_url":
            labels = resource.get("labels") or {}
            if labels.keys() != {"project_id", "host"}:
                raise _field("monitored_resource.labels", "uptime_url has the labels project_id and host")
            if not _HOST.fullmatch(labels["host"]):
                raise _field("monitored_resource.labels.host", f'"{labels["host"]}": a host, no URL')
        http = inputs.get("httpCheck") or {}
        if http.get("validateSsl") and not http.get("useSsl"):
            raise _field("http_check.validate_ssl", "it needs use_ssl")
        if not 0 <= int(http.get("port") or 0) <= 65535:
            raise _field("http_check.port", f"{http['port']}: from 1 to 65535")

    def verify_delete(self, resource: Resource) -> None:
        check = f'check_id="{resource.outputs["uptimeCheckId"]}"'
        for policy in self.cloud.store.all(POLICY):
            for condition in policy.outputs.get("conditions") or []:
                if check in str((condition.get("conditionThreshold") or {}).get("filter")):
                    raise _bad(
                        f"Cannot delete check {resource.outputs['uptimeCheckId']}. One or more alerting "
                        f"policies is using it: {policy.id}"
                    )

    def computed(self, resource_id: str, inputs: dict[str, Any], old: Resource | None) -> dict[str, Any]:
        return {"name": resource_id, "uptimeCheckId": resource_id.rpartition("/")[2]}


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _mark() -> str:
    return number(str(time.time_ns()))[-11:]


HANDLERS = (Dashboard, UptimeCheck)
