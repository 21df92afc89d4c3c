"""The dashboard: pages made by the server, and pieces of them pushed as things change.

watch.py         what a connection shows now, gathered once for all who look
pages.py         the pages, their live stream, and the files they load
pushed.py        pieces that are made once and pushed to all who look
actions.py       orders, and the kill switch
gateways.py      users' own gateways
health.py        what is well and what isn't; health_items.py has a line for each thing
fleet_page.py    all users' gateways, for operators
failures.py      problems as pages and dialogs
dialogs.py       routes whose failures are said in words where the answer would stand
forms.py         forms as browsers send them
wording.py       numbers and times as people read them
remedies.py      what to do about states, reasons and alerts
templates/       the pages; those in parts/ are also pushed one by one
static/          our style sheet and script; third-party ones are in packages/, put there by set-up
"""

from __future__ import annotations

from fastapi import FastAPI

from broker.service.dashboard import fleet_page
from broker.service.dashboard import gateways as own_gateways
from broker.service.dashboard import health as health_page
from broker.service.dashboard.actions import actions
from broker.service.dashboard.failures import ReadableProblems
from broker.service.dashboard.fleet_page import fleet_pages
from broker.service.dashboard.gateways import gateways
from broker.service.dashboard.health import health
from broker.service.dashboard.pages import PACKAGES, STATIC, Dashboard, Files, Maker, pages

__all__ = ["ReadableProblems", "install"]


def install(app: FastAPI, stack: str) -> None:
    """Put the dashboard into the app. Its `ReadableProblems` has to be the outermost middleware."""
    dashboard = app.state.dashboard = Dashboard(stack)
    dashboard.makers["gateways"] = Maker(own_gateways.make_watch)
    dashboard.makers |= dict.fromkeys(("health", "problems"), Maker(health_page.make_watch))
    whole_fleet = Maker(fleet_page.make_watch, (*fleet_page.FILTERS, "after"))
    dashboard.makers |= dict.fromkeys(fleet_page.PARTS, whole_fleet)
    app.include_router(pages)
    app.include_router(health)
    app.include_router(fleet_pages)
    app.include_router(actions)
    app.include_router(gateways)
    app.mount("/static", Files(directory=STATIC))
    app.mount("/packages", Files(directory=PACKAGES, check_dir=False))
