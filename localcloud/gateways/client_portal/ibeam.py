"""IBeam's part: log in at start, look after the session, give up before IBKR locks the account.

Facts from Voyz/ibeam 0.5.12 (`strategy_handler.py`, `var.py`, `health_server.py`): every maintenance interval
the status is looked at; without a login there is a new one; a competing or disconnected session is logged out
and opened again. After IBEAM_MAX_FAILED_AUTH failures in a row nothing is tried any more: the process lives
on, its health server accepts connections and never answers.
"""

from __future__ import annotations

import asyncio
import logging

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from localcloud.exchange.users import LoginFailed
from localcloud.gateways.client_portal.errors import Refusal
from localcloud.gateways.client_portal.gateway import Gateway

_log = logging.getLogger("ibeam")


class IBeam:
    """Keeps one gateway logged in."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.active = gateway.settings.start_active
        self.failed = 0
        self.gave_up = False
        self._wake = asyncio.Event()

    async def run(self) -> None:
        """Looks after the gateway for ever; one round each maintenance interval."""
        while True:
            if self.active and not self.gave_up:
                await self.maintain()
            self._wake.clear()
            try:
                await asyncio.wait_for(self._wake.wait(), self.gateway.settings.maintenance_interval)
            except TimeoutError:
                # The interval has passed, as it should.
                pass

    async def maintain(self) -> None:
        """One round: nothing while all is well, else a login or a new brokerage session."""
        session = self.gateway.session
        if session.authenticated:
            _log.info("Gateway running and authenticated")
        elif not session.logged_in:
            _log.info("No active sessions, logging in...")
            await self._log_in()
        else:
            _log.info("Competing or disconnected Gateway session found, logging out and reauthenticating...")
            try:
                await session.initialise(compete=True)
            except Refusal as refusal:
                _log.error("Reauthenticating failed: %s", refusal.message)
                await session.log_out()

    async def _log_in(self) -> None:
        login = self.gateway.settings.login.read()
        if login is None:
            _log.error("IBEAM_ACCOUNT or IBEAM_PASSWORD can't be read: not logging in")
            return
        try:
            await self.gateway.session.log_in(login)
        except LoginFailed as failure:
            _log.error("Logging in failed: %s", failure.reason)
            timed_out = failure.reason == "second_factor"
            self._count(not timed_out or self.gateway.settings.count_timeout_as_failed)
        except OSError as error:
            _log.error("Logging in failed: IBKR's servers can't be reached (%s)", type(error).__name__)
            self._count(self.gateway.settings.count_timeout_as_failed)
        else:
            self.failed = 0
            _log.info("Logging in succeeded, running and authenticated")

    def _count(self, failure: bool) -> None:
        self.failed += failure
        if self.failed >= self.gateway.settings.max_failed_auth:
            self.gave_up = True
            _log.critical("IBEAM_MAX_FAILED_AUTH reached: giving up after %d failed logins", self.failed)

    async def activate(self) -> None:
        """Looks after the gateway again, from now on."""
        self.active = True
        self._wake.set()

    async def deactivate(self) -> None:
        """Ends the login and leaves the gateway alone."""
        self.active = False
        await self.gateway.session.log_out()


def health_app(ibeam: IBeam) -> Starlette:
    """The health server on port 5001: plain HTTP, nobody is asked who they are."""

    async def livez(request: Request) -> Response:
        await _unless_given_up()
        return PlainTextResponse("Alive" if ibeam.active else "Not Alive", 200 if ibeam.active else 500)

    async def readyz(request: Request) -> Response:
        await _unless_given_up()
        # Competing and connected aren't looked at, so this says less than it seems to.
        ready = ibeam.active and ibeam.gateway.session.logged_in
        return PlainTextResponse("OK" if ready else "Not Ready", 200 if ready else 503)

    async def activate(request: Request) -> Response:
        await _unless_given_up()
        await ibeam.activate()
        return PlainTextResponse("Activated")

    async def deactivate(request: Request) -> Response:
        await _unless_given_up()
        await ibeam.deactivate()
        return PlainTextResponse("Deactivated")

    async def _unless_given_up() -> None:
        if ibeam.gave_up:
            await asyncio.Event().wait()

    handlers = {"livez": livez, "readyz": readyz, "activate": activate, "deactivate": deactivate}
    return Starlette(routes=[Route(f"/{name}", handler) for name, handler in handlers.items()])
