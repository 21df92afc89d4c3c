"""The dashboard: pages made by the server, and pieces of them pushed as things change.

watch.py     what a connection shows now, gathered once for all who look
pages.py     the pages, their live stream, and the files they load
pushed.py    pieces that are made once and pushed to all who look
actions.py   orders, and the kill switch
gateways.py  users' own gateways
forms.py     forms as browsers send them
wording.py   numbers and times as people read them
templates/   the pages; those in parts/ are also pushed one by one
static/      our style sheet and script; third-party ones are in packages/, put there by set-up
"""

from __future__ import annotations

from fastapi import FastAPI

from broker.service.dashboard.actions import actions
from broker.service.dashboard.gateways import gateways, make_watch
from broker.service.dashboard.pages import PACKAGES, STATIC, Dashboard, Files, pages


def install(app: FastAPI, stack: str) -> None:
    """Put the dashboard into the app."""
    dashboard = app.state.dashboard = Dashboard(stack)
    dashboard.makers["gateways"] = make_watch
    app.include_router(pages)
    app.include_router(actions)
    app.include_router(gateways)
    app.mount("/static", Files(directory=STATIC))
    app.mount("/packages", Files(directory=PACKAGES, check_dir=False))
