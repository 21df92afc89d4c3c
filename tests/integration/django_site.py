"""A Django site of three views that trade through one broker, as an agent's web application would."""

from __future__ import annotations

import json
from typing import Any

import django
from django.conf import settings
from django.http import HttpRequest, JsonResponse
from django.urls import path

from broker.base import BaseBroker
from broker.errors import BrokerError, InvalidRequest
from broker.models import OrderRequest

#: the application's broker; a real one is made once per process by `get_broker()`
broker: BaseBroker | None = None

if not settings.configured:
    settings.configure(
        ALLOWED_HOSTS=["*"],
        DEBUG=False,
        ROOT_URLCONF=__name__,
        SECRET_KEY="of a test",
        LOGGING_CONFIG=None,
    )
    django.setup()


def the_broker() -> BaseBroker:
    assert broker is not None
    return broker


def account(request: HttpRequest) -> JsonResponse:
    """A synchronous view."""
    found = the_broker().get_account()
    return JsonResponse({"id": found.id, "cash": found.cash})


async def account_async(request: HttpRequest) -> JsonResponse:
    """An asynchronous view."""
    found = await the_broker().get_account_async()
    return JsonResponse({"id": found.id, "cash": found.cash})


def place(request: HttpRequest) -> JsonResponse:
    """Places what is posted; the client order id comes from the caller, so that repeating it is safe."""
    body: dict[str, Any] = json.loads(request.body)
    try:
        order = the_broker().place_order(OrderRequest(**body))
    except InvalidRequest as wrong:
        return JsonResponse({"error": wrong.message}, status=422)
    except BrokerError as failure:
        return JsonResponse({"error": failure.kind}, status=503)
    return JsonResponse({"id": order.id, "status": order.status})


urlpatterns = [path("account", account), path("account-async", account_async), path("orders", place)]
