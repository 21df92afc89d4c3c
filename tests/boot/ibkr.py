"""IBKR as the machines' gateways reach it: the paper exchange, and a gateway of it for each session.

What stands for IB Gateway, or for IBeam, on a machine says hello with its login. The local cloud's gateway
then runs here with it; its words and its API go over the cable, so what answers on the machine speaks IBKR's
protocols.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from localcloud.exchange.admin import Admin
from tests.boot.internet import Internet

NAME = "gdc1.ibllc.com"
PORT = 4000
_CHECKOUT = Path(__file__).resolve().parents[2]
_PORTAL_READY_SECONDS = 60


class Ibkr:
    """A context manager. Users come and go by `add_user` and `admin`."""

    def __init__(self, internet: Internet) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="ibkr"))
        self._processes: list[subprocess.Popen[str]] = []
        self._sockets: dict[str, Path] = {}
        self._listening = internet.listen(PORT)
        self._lock = threading.Lock()

    def __enter__(self) -> Ibkr:
        exchange = self._start(
            ["localcloud.exchange", "--state", str(self._folder / "state"),
             "--socket", str(self._folder / "exchange"), "--admin", str(self._folder / "admin")]
        )  # fmt: skip
        assert exchange.stdout
        assert "ready" in exchange.stdout.readline()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listening.close()
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            process.wait(30)
        shutil.rmtree(self._folder)

    def admin(self, method: str, **arguments: Any) -> Any:
        """Calls a method of the exchange's administration (`localcloud.exchange.admin`)."""

        async def call() -> Any:
            async with Admin(str(self._folder / "admin")) as admin:
                return await getattr(admin, method)(**arguments)

        return asyncio.run(call())

    def user(self, name: str) -> dict[str, Any]:
        """What the exchange knows of a user."""
        return next(user for user in self.admin("users") if user["name"] == name)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            reading = connection.makefile("rb", buffering=0)
            hello = json.loads(reading.readline())
            if "session" in hello:
                self._relay(connection, self._sockets[hello["session"]])
            elif "ini" in hello:
                self._serve_tws(connection, hello)
            else:
                self._serve_portal(connection, hello)

    def _serve_tws(self, connection: socket.socket, hello: dict[str, Any]) -> None:
        session, folder = self._session()
        ini = folder / "config.ini"
        ini.write_bytes(base64.b64decode(hello["ini"]))
        gateway = self._start(
            ["localcloud.gateways.tws", "--ibc-ini", str(ini), "--mode", hello["mode"],
             "--socket", str(self._sockets[session])]
        )  # fmt: skip
        threading.Thread(target=_end_with, args=(connection, gateway), daemon=True).start()
        assert gateway.stdout
        login = re.search("^IbLoginId=(.*)$", ini.read_text("iso-8859-1"), re.MULTILINE)
        assert login
        if hello["resumes"]:  # a session that goes on needs no second factor
            self.admin("approve_second_factor", name=login.group(1))
        else:
            asking = threading.Thread(
                target=self._tell_of_second_factor, args=(connection, login.group(1), gateway)
            )
            asking.start()
        for line in gateway.stdout:
            _, ibc, text = line.rstrip("\n").partition("IBC: ")
            if not ibc:
                continue
            if "Login has completed" in text:
                _wait_for(self._sockets[session])
                _say(connection, says=text, session=session)
            else:
                _say(connection, says=text)
        _say(connection, exit=gateway.wait())

    def _tell_of_second_factor(
        self, connection: socket.socket, name: str, gateway: subprocess.Popen[str]
    ) -> None:
        """Says what IBC says when the dialog of the second factor opens."""
        while gateway.poll() is None:
            user = self.user(name)
            if user["waiting_for_second_factor"]:
                _say(connection, says="Second Factor Authentication initiated")
            if user["waiting_for_second_factor"] or user["logged_in"]:
                return
            time.sleep(0.1)

    def _serve_portal(self, connection: socket.socket, hello: dict[str, Any]) -> None:
        session, folder = self._session()
        for name in ("account", "password"):
            (folder / name).write_text(hello[name])
        environment = {key: value for key, value in hello["environment"].items() if key.startswith("IBEAM_")}
        environment |= {
            "IBEAM_SECRETS_SOURCE": "fs", "IBEAM_INPUTS_DIR": str(folder),
            "IBEAM_ACCOUNT": str(folder / "account"), "IBEAM_PASSWORD": str(folder / "password"),
        }  # fmt: skip
        (folder / "conf.yaml").write_text("ips: {allow: ['127.0.0.1'], deny: ['0.0.0.0/0']}\n")
        gateway = self._start(
            ["localcloud.gateways.client_portal", "--socket", str(self._sockets[session])], environment
        )
        threading.Thread(target=_end_with, args=(connection, gateway), daemon=True).start()
        _wait_for(self._sockets[session])
        _say(connection, session=session)
        assert gateway.stdout
        for line in gateway.stdout:
            _say(connection, says=line.rstrip("\n"))

    def _session(self) -> tuple[str, Path]:
        with self._lock:
            session = str(len(self._sockets))
            folder = self._folder / session
            folder.mkdir()
            self._sockets[session] = folder / "api"
            return session, folder

    def _relay(self, connection: socket.socket, path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as gateway:
            try:
                gateway.connect(str(path))
            except OSError:
                return
            back = threading.Thread(target=_pipe, args=(gateway, connection), daemon=True)
            back.start()
            _pipe(connection, gateway)
            back.join(30)

    def _start(
        self, arguments: Sequence[str], environment: dict[str, str] | None = None
    ) -> subprocess.Popen[str]:
        servers = f"unix:{self._folder / 'exchange'}"
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", *arguments],
            cwd=_CHECKOUT, env={"PATH": "/usr/bin:/bin", "IBKR_SERVERS": servers, **(environment or {})},
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self._processes.append(process)
        return process


def _say(connection: socket.socket, **words: Any) -> None:
    try:
        connection.sendall(json.dumps(words).encode() + b"\n")
    except OSError:
        pass  # the machine went off


def _end_with(connection: socket.socket, gateway: subprocess.Popen[str]) -> None:
    """Logs out when the program on the machine has gone."""
    try:
        while connection.recv(64):
            pass
    except OSError:
        pass
    gateway.terminate()


def _wait_for(path: Path) -> None:
    """A gateway opens its API a moment after it said so."""
    deadline = time.monotonic() + _PORTAL_READY_SECONDS
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def _pipe(here: socket.socket, there: socket.socket) -> None:
    try:
        while data := here.recv(65536):
            there.sendall(data)
    except OSError:
        pass
    for end in (here, there):
        try:
            end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
