"""Users of the service with IBKR logins of their own, and the droplets that it makes for them."""

import secrets
from typing import Any

import httpx

from tests.e2e.conftest import ask, eventually
from tools.local_stack import LocalStack

ACCOUNTS = "/api/v1/brokers/interactivebrokers"
# A gateway starts, logs in and is looked at, on a machine that does other things besides.
LOGIN_SECONDS = 120.0
# A password may hold all of this.
AWKWARD = "p\"w'\\/&$ {}"


class User:
    """Somebody with an IBKR login, and what they do with the service."""

    def __init__(self, stack: LocalStack, name: str, mode: str = "paper") -> None:
        self.stack = stack
        self.username = f"{name}{secrets.token_hex(4)}"
        self.password = AWKWARD + secrets.token_hex(8)
        stack.cloud.add_user(self.username, self.password, mode)
        told = ask(stack, "token", user=name, roles=["user", "trader"])
        headers = {"Authorization": f"Bearer {told['token']}"}
        url = str(stack.outputs()["service_url"])
        self.client = httpx.Client(base_url=url, timeout=30, headers=headers)

    def connect(self) -> httpx.Response:
        """POST /connect, with a demo environment."""
        credentials = {"username": self.username, "password": self.password}
        body = {"credentials": credentials, "environment": "demo"}
        return self.client.post(f"{ACCOUNTS}/connect", json=body)

    def do(self, method: str, account: str, path: str = "") -> httpx.Response:
        """A request about an account."""
        return self.client.request(method, f"{ACCOUNTS}/accounts/{account}{path}")

    def status(self, account: str) -> str:
        """The account's status; empty if it isn't to be had."""
        answer = self.do("GET", account, "/status")
        return str(answer.json()["status"]) if answer.status_code == 200 else ""

    def until(self, account: str, status: str) -> list[str]:
        """Wait for a status; those that were seen on the way, in order."""
        seen: list[str] = []

        def look() -> str:
            now = self.status(account)
            if now and now not in seen[-1:]:
                seen.append(now)
            return now

        eventually(look, lambda now: now in (status, "error"), LOGIN_SECONDS)
        assert seen[-1] == status, self.do("GET", account).text
        return seen


def droplet(stack: LocalStack, number: int) -> dict[str, Any] | None:
    """A droplet as DigitalOcean's API describes it; None if there is none."""
    env = stack.cloud.service_environment()
    answer = httpx.get(
        f"{env['DIGITALOCEAN_API_URL']}/v2/droplets/{number}",
        headers={"Authorization": f"Bearer {env['DIGITALOCEAN_TOKEN']}"},
    )
    found: dict[str, Any] | None = answer.json().get("droplet")
    return found
