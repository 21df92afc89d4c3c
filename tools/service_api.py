"""The service's API as the commands ask it."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from tools import service_check
from tools.local_cloud import CommandFailed

#: seconds: an order may wait for its broker
TIMEOUT = 60.0


class Refused(CommandFailed):
    """The service answered with a problem document; `status` is HTTP's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Away(CommandFailed):
    """The service can't be reached."""


class Api:
    """A service and who asks it. Methods raise Refused and Away, whose messages say what was asked."""

    def __init__(self, url: str, token: str = "", timeout: float = TIMEOUT) -> None:
        self.url = url
        self._token, self._timeout = token, timeout

    def get(self, path: str) -> Any:
        """GET a JSON document: `get("/api/v1/halt")`."""
        return self._ask("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """POST; the answer's document."""
        return self._ask("POST", path, body or {})

    def delete(self, path: str) -> Any:
        """DELETE; the answer's document."""
        return self._ask("DELETE", path, None)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        headers = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        data = None if body is None else json.dumps(body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            said = service_check.reason_in(error)
            raise Refused(error.code, f"{method} {path}: the service answers {error.code}: {said}") from None
        except (OSError, ValueError) as error:
            raise Away(f"{self.url} doesn't answer: {getattr(error, 'reason', error)}") from None
