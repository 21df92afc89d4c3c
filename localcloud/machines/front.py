"""Google's front end of a Cloud Run service: one public address, whatever revision is behind it.

It is a guarded TCP front: who may come in is decided per connection, and a connection stays with the
instance it got. Refusals are answered here, as Google answers them, so that the service never sees
them: 403 without the right to invoke, 404 where ingress admits only the VPC, 503 without an instance.
"""

from __future__ import annotations

import asyncio
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud.cloud import CloudError
from localcloud.iam import is_public, may_invoke
from localcloud.machines.revision import Instance
from localcloud.network import INTERNET

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

NOTES = "run.services"
_ADDRESSES = "191.0/24"  # the end of what plays the internet's addresses
_FIRST_PORT, _LAST_PORT = 8080, 8099
_INGRESS_ALL = "INGRESS_TRAFFIC_ALL"
_REFUSALS = {
    403: ("Forbidden", "Your client does not have permission to get URL / from this server."),
    404: ("Page not found", "The requested URL was not found on this server."),
    503: ("Service Unavailable", "The service is currently unavailable."),
}
_READ_SECONDS = 10


class Fronts:
    """The fronts of all services, and the little servers that answer refusals."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._servers: dict[int, asyncio.AbstractServer] = {}

    @classmethod
    def of(cls, cloud: Cloud) -> Fronts:
        """The cloud's fronts; made when first asked for."""
        found: Fronts = cloud.extensions.setdefault("run.fronts", cls(cloud))
        return found

    async def open(self, service: str) -> str:
        """Publish a service at its address, at port 8080 or the next free one; its URL.

        The address and the port are kept, so the URL stays over updates and restarts. Services have a range
        of their own, so that the first one's URL is known before it is made, as Cloud Run's are.
        """
        await self._answer_refusals()
        note = self._cloud.store.notes(NOTES)[service]
        name = machine_name(service)
        if self._cloud.network.listening(name):
            return str(note["uri"])
        addresses = f"{self._cloud.settings.network}.{_ADDRESSES}"
        address = self._cloud.addresses.allocate_in(addresses, name)
        wanted = note.get("port") or _FIRST_PORT
        for port in (wanted, *(one for one in range(_FIRST_PORT, _LAST_PORT + 1) if one != wanted)):
            try:
                self._cloud.network.publish(name, address, port, lambda source: self.target(service, source))
            except CloudError as error:
                if port == _LAST_PORT:
                    raise error
                continue
            break
        uri = f"http://{address}:{port}"
        self._cloud.store.note(NOTES, service, {**note, "address": address, "port": port, "uri": uri})
        return uri

    def close(self, service: str) -> None:
        """Take the front away. The address is given back."""
        for listening in self._cloud.network.listening(machine_name(service)):
            self._cloud.network.unpublish(listening.address, listening.port)
        self._cloud.addresses.release(machine_name(service))

    def target(self, service: str, source: str) -> Path:
        """The socket that a new connection from `source` gets."""
        note: dict[str, Any] = self._cloud.store.notes(NOTES).get(service, {})
        if note.get("ingress", _INGRESS_ALL) != _INGRESS_ALL and not self._in_a_vpc(source):
            return self._refusal(404)
        if not note.get("invoker_iam_disabled") and not is_public(self._cloud.store, service):
            return self._refusal(403)
        return self._instance(service, note)

    def socket_for(self, url: str, email: str) -> Path | None:
        """Where a caller with a service account's token gets when it asks `url`; None: no service of ours.

        The caller is a service of Google's in this project, which every ingress admits.
        """
        for service, note in self._cloud.store.notes(NOTES).items():
            if f"{url}/".startswith(f"{note.get('uri')}/"):
                store = self._cloud.store
                open_to_all = note.get("invoker_iam_disabled") or is_public(store, service)
                if not open_to_all and not may_invoke(store, email, service):
                    return self._refusal(403)
                return self._instance(service, note)
        return None

    def _instance(self, service: str, note: dict[str, Any]) -> Path:
        machine = self._cloud.machines.running(f"run/{service}/{note.get('active')}")
        socket = None
        if machine and isinstance(machine.software, Instance):
            socket = machine.software.socket_for_next()
        return socket or self._refusal(503)

    def _in_a_vpc(self, source: str) -> bool:
        place = self._cloud.network.topology().places.get(source)
        return source != INTERNET and place is not None and bool(place.network or place.connector)

    def _refusal(self, status: int) -> Path:
        return self._cloud.settings.run / f"refuse-{status}.sock"

    async def _answer_refusals(self) -> None:
        for status in _REFUSALS:
            if status not in self._servers:
                self._servers[status] = await asyncio.start_unix_server(
                    functools.partial(_refuse, status), path=self._refusal(status)
                )


def machine_name(service: str) -> str:
    """The name under which a service (not one of its revisions) is known to the network."""
    return f"run/{service}"


async def _refuse(status: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read one request and answer it, as Google's front end does for a service it won't reach."""
    title, words = _REFUSALS[status]
    body = f"<html><title>{status} {title}</title><h1>Error: {title}</h1><h2>{words}</h2></html>\n"
    head = [
        f"HTTP/1.1 {status} {title}",
        "Content-Type: text/html; charset=UTF-8",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    try:
        async with asyncio.timeout(_READ_SECONDS):
            await reader.readuntil(b"\r\n\r\n")
        writer.write("\r\n".join([*head, "", body]).encode())
        await writer.drain()
    except (TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        pass  # it sent no request, or left: nobody to answer
    finally:
        writer.close()
