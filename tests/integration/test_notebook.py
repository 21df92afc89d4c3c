"""The broker in a real Jupyter kernel, whose event loop runs while a cell does."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.broker.paper_gateway import paper_gateway

ROOT = Path(__file__).parents[2]
CELLS = [
    "from broker import get_broker\nbroker = get_broker()\nbroker.name",
    "broker.get_account().cash > 0",
    "(await broker.get_account_async()).id == broker.get_account().id",
    "order = broker.place_limit_order('AAPL', 1, 'buy', 1.0, client_order_id='cell-4')\norder.status",
    # A cell that is run again, as people do, is the same order.
    "broker.place_limit_order('AAPL', 1, 'buy', 1.0, client_order_id='cell-4').id == order.id",
    "import asyncio\nlen(await asyncio.gather(*(broker.get_positions_async() for _ in range(5))))",
    "broker.cancel_order(order.id)",
    "broker.disconnect()\n'done'",
]


@pytest.fixture(params=["simulated", "ibkr"])
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The kernel's environment: a journal of the test's, the broker by BROKER_TYPE."""
    found = os.environ | {
        "BROKER_TYPE": request.param,
        "BROKER_JOURNAL": str(tmp_path / "orders.sqlite"),
        "IPYTHONDIR": str(tmp_path),
        "JUPYTER_RUNTIME_DIR": str(tmp_path),
    }
    if request.param == "simulated":
        yield found
        return
    with paper_gateway() as paper:
        yield found | {"IBKR_GATEWAY_PORT": str(paper.port), "IBKR_TRADING_MODE": "paper"}


def test_a_notebook_trades_with_and_without_await(environment: dict[str, str]) -> None:
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(
        notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": ROOT}}
    )
    client.execute(env=environment)
    shown = [
        output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.outputs
        if output["output_type"] == "execute_result"
    ]
    assert shown[0] == repr(environment["BROKER_TYPE"])
    assert shown[1:3] == ["True", "True"]
    assert shown[3] in ("'submitted'", "'accepted'")
    assert shown[4:] == ["True", "5", "True", "'done'"]
