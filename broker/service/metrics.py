"""What Prometheus reads of the service: its process, tokens that were refused, and the fleet.

The service's address is public, so metrics need a token too: Prometheus gets one by itself (`oauth2` in its
scrape configuration) for a client with the role `monitor`, which can read nothing else. Each instance has its
own; the fleet's gauges are the ones of whichever instance runs the passes. Who has no Prometheus reads them
in the log (`broker.service.told_metrics`).
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from broker.models import Health
from broker.service.auth import Principal, bearer, require
from broker.service.fleet import Fleet
from broker.service.routes import problem_answers
from broker.service.streams import Streams

Monitor = Annotated[Principal, Depends(require("monitor", "operator"))]

metrics = APIRouter(
    tags=["metrics"], dependencies=[Depends(bearer)], responses=problem_answers(401, 403, 503)
)


class ServiceMetrics:
    """The metrics of one process beside the fleet's. No label holds a path, a user or a secret."""

    def __init__(self, streams: Streams) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Histogram(
            "api_request_seconds",
            "From a request to the beginning of its answer, by the answer's status",
            ("status",),
            registry=self.registry,
        )
        self.refused_tokens = Counter(
            "api_refused_tokens",
            "Requests whose token didn't hold",
            ("error",),
            registry=self.registry,
        )
        for error in ("no_token", "invalid_token"):
            self.refused_tokens.labels(error)  # so that the first one is an increase
        self.refused_streams = Counter(
            "api_refused_streams",
            "Pages and streams beyond the limit: 429 the user's own, 503 the instance's",
            ("status",),
            registry=self.registry,
        )
        for status in (429, 503):
            self.refused_streams.labels(status)
        self.open_streams = Gauge(
            "api_open_streams", "Pages and streams that are open", registry=self.registry
        )
        self.open_streams.set_function(lambda: streams.open)
        self.connected = Gauge(
            "broker_connected",
            "Whether the service's own broker was connected at the last look, each five minutes; nothing "
            "while another instance holds the connection",
            ("broker",),
            registry=self.registry,
        )
        self.user_connections = Gauge(
            "broker_user_connections", "Users' gateways that are connected to", registry=self.registry
        )

    def answered(self, status: int, seconds: float) -> None:
        """A request was answered, and the answer began after so many seconds."""
        self.requests.labels(status).observe(seconds)

    def looked(self, broker: str, health: Health) -> None:
        """The link to the service's own broker is like this now."""
        self.connected.clear()
        if health.state != "stand_by":
            self.connected.labels(broker).set(int(health.ok))


@metrics.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(who: Monitor, request: Request) -> Response:
    """The metrics of this instance, in Prometheus' text format."""
    own: ServiceMetrics = request.app.state.metrics
    fleet: Fleet | None = request.app.state.fleet
    text = generate_latest(own.registry)
    if fleet is not None:
        text += generate_latest(fleet.metrics.registry)
    return Response(text, media_type=CONTENT_TYPE_LATEST)
