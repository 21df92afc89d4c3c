"""Structured logs: one JSON object a line on stdout, the libraries' lines included, secrets taken out."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

_SECRET_NAME = re.compile(r"password|secret|token|authorization|api_?key|cookie", re.IGNORECASE)
#: user:password@ in a URL, and bearer tokens, wherever they stand in a line
_SECRET_TEXT = re.compile(r"(?<=://)([^/@\s:]+):[^@\s]+(?=@)|(?i:bearer)\s+[\w.~+/=-]+")


def configure(level: str) -> None:
    """Send everything that is logged through structlog. `level`: DEBUG, INFO, WARNING or ERROR."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _severity,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        without_secrets,
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.PositionalArgumentsFormatter(),
                structlog.stdlib.ExtraAdder(),
                *shared,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("ib_insync", "ib_async", "httpx", "httpcore", "alembic", "azure"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers.clear()
        logging.getLogger(name).propagate = True


def _severity(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: the level under the name and in the words that Cloud Logging reads."""
    event["severity"] = str(event["level"]).upper()
    event.pop("color_message", None)  # uvicorn's, for terminals
    return event


def without_secrets(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A structlog processor: values of secret names, and secrets inside texts, become ***."""
    for name, value in event.items():
        if name != "event" and _SECRET_NAME.search(name):
            event[name] = "***"
        elif isinstance(value, str):
            event[name] = _SECRET_TEXT.sub(lambda m: f"{m[1]}:***" if m[1] else "***", value)
    return event
