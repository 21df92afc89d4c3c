"""The FastAPI application: settings in, routes out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

import httpx
from fastapi import FastAPI, Request, Response
from starlette.types import Lifespan

from broker.alerts import Alerts
from broker.service import dashboard, fleet_problems, halt, problems
from broker.service.alarms import AlarmStore
from broker.service.auth import Authenticator, Forbidden, KeySet, Unauthorized
from broker.service.certificates import certificates
from broker.service.connections import own_connections
from broker.service.cors import Cors
from broker.service.database import make_engine
from broker.service.document import TITLE, document, operation_name
from broker.service.events import events
from broker.service.fleet import Fleet, open_vault
from broker.service.fleet_alerts import alerts as user_alerts
from broker.service.fleet_operator import Scheduler, droplets, operators, scheduled
from broker.service.fleet_routes import accounts
from broker.service.metrics import ServiceMetrics, metrics
from broker.service.middleware import RequestMiddleware
from broker.service.order_routes import orders
from broker.service.routes import NoPosition, UnknownConnection, probes, trading
from broker.service.sessions import sessions
from broker.service.settings import Settings
from broker.service.streams import RETRY_AFTER, Streams, TooManyStreams
from broker.service.told_metrics import ToldMetrics, keep_telling
from broker.service.user_connections import UserConnections
from broker.service.values import ValueKeeper, ValueStore
from broker.service.verification import verification


def create_app(settings: Settings) -> FastAPI:
    """The application. Nothing is opened before it starts (its lifespan), and all is closed at its end.

    Raises ConfigurationError for a key file that can't be read.
    """
    vault = open_vault(settings.fleet) if settings.fleet else None

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        service = settings.service
        engine = make_engine(service.database_url.get_secret_value())
        alarms = app.state.alarms = AlarmStore(engine)
        alerts = Alerts(
            settings.broker.alert_urls, secrets=settings.secrets, source=service.stack, kept=alarms.keep
        )
        async with httpx.AsyncClient(follow_redirects=False) as client:
            keys = KeySet(client, service.oidc_issuer, service.oidc_jwks_url)
            app.state.engine = engine
            app.state.alerts = alerts
            app.state.authenticator = Authenticator(keys, service.oidc_issuer, service.oidc_audience)
            connections = app.state.connections = own_connections(settings, engine, alerts)
            default = connections["default"]
            fleet = app.state.fleet = (
                Fleet(settings.fleet, vault, engine, alerts) if settings.fleet and vault else None
            )
            app.state.scheduler = Scheduler.of(client, settings.fleet)
            users = app.state.user_connections = (
                UserConnections(fleet, engine, settings.broker, settings.market, alerts) if fleet else None
            )
            if users:
                users.start()
            beginning = [via.start() for via in connections.values()]
            await asyncio.gather(*beginning, *([fleet.start()] if fleet else []))
            values = [ValueKeeper(name, via.account, ValueStore(engine)) for name, via in connections.items()]
            for keeper in values:
                keeper.start()
            own_metrics.user_connections.set_function(lambda: users.open_connections if users else 0)
            registries = [own_metrics.registry, *([fleet.metrics.registry] if fleet else [])]
            telling = asyncio.create_task(
                keep_telling(ToldMetrics(registries), own_metrics, default.broker_type, default.health)
            )
            try:
                yield
            finally:
                telling.cancel()
                for keeper in values:
                    await keeper.stop()
                # Side by side: an instance has a few seconds for all.
                ends = [one.stop() for one in (users, fleet) if one]
                await asyncio.gather(*(via.stop() for via in connections.values()), *ends)
        await asyncio.to_thread(engine.dispose)

    app = api(lifespan)
    own = settings.service
    streams = app.state.streams = Streams(own.stream_limit, own.streams_per_user, own.stream_seconds)
    own_metrics = app.state.metrics = ServiceMetrics(streams)
    problems.install(app)
    _install_refusals(app, own_metrics)
    fleet_problems.install(app)
    dashboard.install(app, settings.service.stack)
    app.add_middleware(
        RequestMiddleware, body_limit=settings.service.body_limit, answered=own_metrics.answered
    )
    app.add_middleware(dashboard.ReadableProblems)
    if settings.service.cors_origins:
        app.add_middleware(Cors, origins=settings.service.cors_origins)
    return app


def api(lifespan: Lifespan[FastAPI] | None = None) -> FastAPI:
    """The API's routes and their document. Without a lifespan it can only tell of itself."""
    app = FastAPI(
        title=TITLE,
        lifespan=lifespan,
        docs_url="/docs",
        redoc_url=None,
        generate_unique_id_function=operation_name,
    )
    app.include_router(trading)
    app.include_router(orders)
    app.include_router(events)
    app.include_router(verification)
    app.include_router(certificates)
    app.include_router(halt.exports)
    app.include_router(halt.switch)
    app.include_router(accounts)
    app.include_router(droplets)
    app.include_router(scheduled)
    app.include_router(operators)
    app.include_router(user_alerts)
    app.include_router(sessions)
    app.include_router(probes)
    app.include_router(metrics)
    app.openapi = partial(document, app)  # type: ignore[method-assign]
    return app


def _install_refusals(app: FastAPI, own_metrics: ServiceMetrics) -> None:
    @app.exception_handler(Unauthorized)
    async def unauthorized(request: Request, error: Unauthorized) -> Response:
        own_metrics.refused_tokens.labels(error.error or "no_token").inc()
        challenge = f'Bearer error="{error.error}"' if error.error else "Bearer"
        headers = {"WWW-Authenticate": challenge}
        return problems.problem(401, "unauthorized", "Not authenticated", str(error), headers=headers)

    @app.exception_handler(Forbidden)
    async def forbidden(request: Request, error: Forbidden) -> Response:
        return problems.problem(403, "forbidden", "Not allowed", str(error))

    @app.exception_handler(TooManyStreams)
    async def crowded(request: Request, error: TooManyStreams) -> Response:
        own_metrics.refused_streams.labels(error.status).inc()
        headers = {"Retry-After": str(RETRY_AFTER)}
        return problems.problem(
            error.status, "too-many-streams", "Too many streams are open", error.message, headers=headers
        )

    @app.exception_handler(NoPosition)
    @app.exception_handler(UnknownConnection)
    async def missing(request: Request, error: NoPosition | UnknownConnection) -> Response:
        return problems.problem(404, error.kind, "Nothing is here", error.message)
