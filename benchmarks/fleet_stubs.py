"""A DigitalOcean that only lists, and droplets that are all ready: what a pass over many accounts needs.

    python -m benchmarks.fleet_stubs DROPLETS SECONDS

A process of its own, so that its work can be told apart. Prints a line of JSON: where things are, and the
certificate's hash. Each line on its input is answered with what was asked since the last one: list calls,
other calls, probes, and the CPU seconds that this process took for them.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import resource
import socket
import ssl
import sys
import tempfile
import urllib.parse
from abc import ABC, abstractmethod
from collections import Counter
from pathlib import Path
from typing import Any

from soak.certificate import loopback_certificate

STACK, PER_PAGE = "bench", 200
FIRST = 1000

_TICKLE = json.dumps(
    {
        "iserver": {
            "authStatus": {"authenticated": True, "connected": True, "competing": False, "established": True}
        }
    }
).encode()
_ASKED = re.compile(rb"(GET|POST|PUT|DELETE) (\S+) HTTP/1.1\r\n")


def account_of(number: int) -> str:
    """The account of a droplet."""
    return f"ib-demo-{number:08x}"


def address_of(number: int) -> str:
    """A droplet's address, one of 127.64.0.0/12."""
    return f"127.{64 + number // 65536}.{number // 256 % 256}.{number % 256}"


def enrolment_of(number: int) -> str:
    """The enrolment that a droplet carries."""
    return f"{number:016x}"


def document(number: int) -> dict[str, Any]:
    """A droplet as the API shows it, about as long as in life (some 2 kB)."""
    regions = [
        f"{place}{which}" for place in ("ams", "blr", "fra", "lon", "nyc", "sfo") for which in (1, 2, 3)
    ]
    size: dict[str, Any] = {
        "slug": "s-1vcpu-512mb-10gb",
        "memory": 512,
        "vcpus": 1,
        "disk": 10,
        "transfer": 0.5,
        "price_monthly": 4.0,
        "price_hourly": 0.00595,
        "regions": regions,
        "available": True,
        "description": "Basic",
    }
    image = {
        "id": 155133621,
        "name": "24.04 (LTS) x64",
        "distribution": "Ubuntu",
        "slug": "ubuntu-24-04-x64",
        "public": True,
        "regions": regions,
        "created_at": "2024-05-09T20:33:03Z",
        "min_disk_size": 7,
        "type": "base",
        "size_gigabytes": 2.4,
        "description": "Ubuntu 24.04 x86",
        "tags": [],
        "status": "available",
    }
    network = {"ip_address": address_of(number), "netmask": "255.255.240.0", "gateway": "127.64.0.1"}
    account, enrolment = f"account:{account_of(number)}", f"enrolment:{enrolment_of(number)}"
    return {
        "id": number,
        "name": f"user{number}-ib-demo-1",
        **{name: size[name] for name in ("memory", "vcpus", "disk")},
        "locked": False,
        "status": "active",
        "kernel": None,
        "created_at": "2026-11-20T15:00:00Z",
        "features": ["droplet_agent"],
        "backup_ids": [],
        "next_backup_window": None,
        "snapshot_ids": [],
        "image": image,
        "volume_ids": [],
        "size": size,
        "size_slug": size["slug"],
        "networks": {"v4": [{**network, "type": "public"}], "v6": []},
        "region": {"name": "New York 1", "slug": "nyc1", "features": ["backups"], "sizes": regions},
        "tags": ["ibeam", f"stack:{STACK}", "manager:service", account, enrolment],
        "vpc_uuid": "760e09ef-dc84-11e8-981e-3cfdfeaae000",
    }


def pages(droplets: int) -> list[bytes]:
    """The answers to the pages of a list."""
    last = max(1, -(-droplets // PER_PAGE))
    found = []
    for page in range(last):
        numbers = range(FIRST + page * PER_PAGE, FIRST + min((page + 1) * PER_PAGE, droplets))
        following = f"http://127.0.0.1/v2/droplets?page={page + 2}&per_page={PER_PAGE}&tag_name=stack:{STACK}"
        links = {"pages": {"next": following}} if page + 1 < last else {}
        shown = {"droplets": [document(n) for n in numbers], "links": links, "meta": {"total": droplets}}
        found.append(json.dumps(shown).encode())
    return found


class _Http(asyncio.Protocol, ABC):
    """The least that speaks HTTP/1.1 to clients which send one request after the other."""

    def __init__(self, stubs: Stubs) -> None:
        self._stubs, self._received = stubs, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See Protocol."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """See Protocol."""
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, self._received = self._received.partition(b"\r\n\r\n")
            match = _ASKED.match(head + b"\r\n")
            assert match is not None
            self._asked(match[1].decode(), match[2].decode())

    @abstractmethod
    def _asked(self, method: str, target: str) -> None:
        """Answer a request."""

    def _answer(self, content: bytes, *headers: str) -> None:
        lines = [
            "HTTP/1.1 200 OK",
            "Content-Type: application/json",
            f"Content-Length: {len(content)}",
            *headers,
        ]
        self._transport.write("\r\n".join([*lines, "", ""]).encode() + content)


class _Api(_Http):
    def _asked(self, method: str, target: str) -> None:
        path, _, query = target.partition("?")
        given = dict(urllib.parse.parse_qsl(query))
        is_list = (method, path, given.get("tag_name")) == ("GET", "/v2/droplets", f"stack:{STACK}")
        self._stubs.counted["lists" if is_list else "other"] += 1
        whole = is_list and given.get("per_page") == str(PER_PAGE)
        self._answer(self._stubs.pages[int(given.get("page", "1")) - 1] if whole else b"{}")


class _Agent(_Http):
    def _asked(self, method: str, target: str) -> None:
        self._stubs.counted["probes"] += 1
        asyncio.get_running_loop().call_later(self._stubs.seconds, self._ready)

    def _ready(self) -> None:
        self._answer(_TICKLE)


class Stubs:
    """Both servers."""

    def __init__(self, droplets: int, seconds: float) -> None:
        """`seconds`: how long a droplet takes to answer."""
        self.seconds = seconds
        self.pages = pages(droplets)
        self.counted: Counter[str] = Counter()

    async def serve(self) -> None:
        """Until the input ends."""
        loop = asyncio.get_running_loop()
        with tempfile.TemporaryDirectory() as folder:
            certificate, key = loopback_certificate(Path(folder))
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.num_tickets = 0  # as the agent has it
            context.load_cert_chain(certificate, key)
            der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        api, agents = _listener("127.0.0.1"), _listener("0.0.0.0")
        await loop.create_server(lambda: _Api(self), sock=api)
        await loop.create_server(lambda: _Agent(self), sock=agents, ssl=context, backlog=1024)
        told = {"api": f"http://127.0.0.1:{api.getsockname()[1]}", "port": agents.getsockname()[1]}
        print(json.dumps({**told, "certificate": hashlib.sha256(der).hexdigest()}), flush=True)
        before = _cpu()
        while await loop.run_in_executor(None, sys.stdin.readline):
            print(json.dumps({**self.counted, "cpu": _cpu() - before}), flush=True)
            self.counted.clear()
            before = _cpu()


def _listener(host: str) -> socket.socket:
    """A socket for loopback only, whatever the host: all of 127.0.0.0/8 if it is 0.0.0.0."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
    made.bind((host, 0))
    return made


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    asyncio.run(Stubs(int(sys.argv[1]), float(sys.argv[2])).serve())
