"""A gateway VM with its surroundings: the machine, Google, IBKR, and what serves installer and IBC."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path
from typing import Any

from broker.fleet.cloud_init import render
from tests.boot import apt_repository, artefacts, ibkr
from tests.boot.apt_repository import AptRepository
from tests.boot.google import Google
from tests.boot.ibkr import Ibkr
from tests.boot.image import Image
from tests.boot.internet import SERVICE, Answer, Internet
from tests.boot.machine import Machine
from tests.fleet.values import GATEWAY

ADDRESS = "10.20.0.2"
PORTS = {"live": 4001, "paper": 4002}
USER = "ib user"
PASSWORD = 'it\'s "quoted"back\\slash\\sl/ash & amp$dollar $(reboot)# = : !ümläut'
PINNED = {
    "gateway_sha256": hashlib.sha256(artefacts.installer()).hexdigest(),
    "ibc_sha256": hashlib.sha256(artefacts.ibc_zip()).hexdigest(),
}
"""A password as people have them, and the checksums of what is served."""


class GatewayVm:
    """A context manager; `google` and `ibkr` know nobody at first, `repository` is Google's for apt."""

    def __init__(self, image: Image, folder: Path) -> None:
        self.google = Google()
        self.repository = AptRepository(image.codename)
        sites = {
            "download2.example": lambda _: Answer(200, artefacts.installer()),
            "github.example": lambda _: Answer(200, artefacts.ibc_zip()),
            ibkr.NAME: lambda _: Answer(404),
            apt_repository.NAME: self.repository.site,
            **self.google.sites,
        }
        self.internet = Internet(image, folder, sites)
        self._image, self._folder = image, folder

    def __enter__(self) -> GatewayVm:
        self.repository.__enter__()
        self.internet.__enter__()
        self.ibkr = Ibkr(self.internet)
        self.ibkr.__enter__()
        self.machine = Machine(self._image, self.internet, self._folder / "vm", ADDRESS, ["ibkr-settings"])
        self.machine.mask(
            "docker.service", "docker.socket", "containerd.service"
        )  # the image has droplets' packages
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()
        self.ibkr.__exit__()
        self.internet.__exit__()
        self.repository.__exit__()

    def boot(self, **values: Any) -> None:
        """Boots with the user data of a paper gateway, or of what `values` say."""
        self.machine.boot(render("ib-gateway.yaml", {**GATEWAY, **PINNED, **values}))

    def until_logged_in(self, mode: str = "paper") -> None:
        """Waits until a gateway is logged in and its port of the VPC answers."""
        self.until_said("Login has completed", mode)
        self.machine.until(lambda: self._answers(PORTS[mode]), "the API answers")

    def latest(self, metric: str, mode: str = "paper") -> tuple[str, int]:
        """The last point of a metric of a gateway, with the state that it is labelled with."""
        points = self.google.points(f"/{metric}", mode)
        if not points:
            return "", -1
        return points[-1]["metric"]["labels"]["state"], int(points[-1]["points"][0]["value"]["int64Value"])

    def until_said(self, text: str, mode: str = "paper") -> None:
        """Waits until a gateway's log has a text."""
        unit = f"ibkr-gateway@{mode}.service"
        self.machine.until(lambda: text in self.machine.journal(unit), f"{text!r} was said")

    def _answers(self, port: int) -> bool:
        try:
            return bool(self.handshake(port))
        except OSError:
            return False

    def handshake(self, port: int, source: str = SERVICE) -> str:
        """The server version that the TWS API answers with. Raises OSError where there is none."""
        with self.internet.client(ADDRESS, port, source) as connection:
            versions = b"v100..176"
            connection.sendall(b"API\x00" + struct.pack("!I", len(versions)) + versions)
            reading = connection.makefile("rb")
            (length,) = struct.unpack("!I", reading.read(4) or b"\0\0\0\0")
            if not length:
                raise ConnectionError("no handshake")
            return reading.read(length).split(b"\x00")[0].decode()
