"""A paper exchange and a paper IB Gateway in processes of their own, for the tests of broker and service."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def eventually(check: Callable[[], Any], why: str, seconds: float = 30.0) -> Any:
    """The first true answer of `check`; fails with `why` if none comes."""
    pause = threading.Event()
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if answer := check():
            return answer
        pause.wait(0.02)
    pytest.fail(f"never happened within {seconds:g} s: {why}")


@dataclass
class Paper:
    """The exchange's admin socket, one user, and that user's gateway."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    user: str = "paper"
    account: str = ""
    mode: str = "paper"
    #: the account numbers of the login; one that the exchange chooses unless given
    accounts: tuple[str, ...] = ()

    def admin(self, method: str, **params: Any) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as line:
            line.connect(str(self.folder / "admin"))
            line.sendall(json.dumps({"id": 1, "method": method, "params": params}).encode() + b"\n")
            answer = json.loads(line.makefile().readline())
        assert "error" not in answer, answer
        return dict(answer["result"])

    def fault(self, name: str, value: Any) -> None:
        self.admin("set_fault", name=name, value=value)

    def gateway(self, action: str, **content: Any) -> None:
        assert self.admin("gateway", action=action, **content)["gateways"] == 1

    def book(self, account: str = "") -> list[dict[str, Any]]:
        """Every order that the exchange accepted."""
        return list(self.admin("orders", account=account or self.account)["orders"])

    def start_exchange(self) -> None:
        arguments = ["--state", str(self.folder / "state"), "--socket", str(self.folder / "link")]
        arguments += ["--admin", str(self.folder / "admin")]
        self._start("localcloud.exchange", *arguments)
        eventually((self.folder / "admin").exists, "the exchange is ready")
        password = secrets.token_urlsafe(12)
        given = {"accounts": list(self.accounts)} if self.accounts else {}
        user = self.admin(
            "add_user", name=self.user, password=password, cash=100_000.0, mode=self.mode, **given
        )
        self.account = user["accounts"][0]
        self.admin("set_price", symbol="AAPL", price=200.0)
        settings = f"IbLoginId={self.user}\nIbPassword={password}\nTradingMode={self.mode}\n"
        (self.folder / "config.ini").write_text(settings)

    def start_gateway(self) -> subprocess.Popen[str]:
        ini, listen = str(self.folder / "config.ini"), f"127.0.0.1:{self.port}"
        gateway = self._start("localcloud.gateways.tws", "--ibc-ini", ini, "--listen", listen)
        eventually(self._answers, "the gateway opens its port")
        return gateway

    def _start(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        environment = os.environ | {"IBKR_SERVERS": f"unix:{self.folder / 'link'}"}
        with (self.folder / f"{module}.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                cwd=ROOT,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
            )
        self.processes.append(process)
        return process

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(0.2)
            return probe.connect_ex(("127.0.0.1", self.port)) == 0

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.kill()
            process.wait(10)


def free_port() -> int:
    """A port that nothing listens on.

    Below the range that the kernel takes outgoing ports from: there, a probe of a port that isn't
    open yet may be given that very port as its own, and then connects to itself.
    """
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def paper_gateway(mode: str = "paper", accounts: tuple[str, ...] = ()) -> Iterator[Paper]:
    """An exchange and a logged-in gateway. AAPL stands at 200 dollars and doesn't move by itself.

    `mode` live: the same exchange, under an account that is named as live ones are.
    """
    folder = Path(tempfile.mkdtemp(prefix="px"))  # short: unix socket paths are limited to 107 bytes
    made = Paper(folder, free_port(), mode=mode, accounts=accounts)
    try:
        made.start_exchange()
        made.start_gateway()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
