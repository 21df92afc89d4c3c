"""The one place that imports the TWS client library: ib_async where it is installed, else ib_insync.

Both offer the same API and neither can be installed beside the other (both bring a package named
`eventkit`). Their sync calls are never used: they run `run_until_complete`, which fails inside a
running loop, uvicorn's above all.
"""

from __future__ import annotations

import asyncio
import importlib
from types import ModuleType
from typing import Any


def _load() -> ModuleType:
    # eventkit asks for the thread's event loop when it is imported, and a worker thread has none.
    policy = asyncio.get_event_loop_policy()
    made = None
    try:
        policy.get_event_loop()
    except RuntimeError:
        made = policy.new_event_loop()
        policy.set_event_loop(made)
    try:
        return importlib.import_module("ib_async")
    except ModuleNotFoundError as missing:
        if missing.name != "ib_async":
            raise
        return importlib.import_module("ib_insync")
    finally:
        if made is not None:
            policy.set_event_loop(None)
            made.close()


_library = _load()

NAME: str = _library.__name__
VERSION: str = str(_library.__version__)

IB: Any = _library.IB
Client: Any = _library.Client
Wrapper: Any = _library.Wrapper
Contract: Any = _library.Contract
Stock: Any = _library.Stock
Order: Any = _library.Order
RequestError: Any = importlib.import_module(f"{NAME}.wrapper").RequestError
UNSET_DOUBLE: float = importlib.import_module(f"{NAME}.util").UNSET_DOUBLE
