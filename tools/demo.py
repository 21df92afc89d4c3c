"""`make demo`: a guided tour of the local stack, with an account of its own that it takes away at the end."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable
from typing import Any

from tools import cache, service_check, summary
from tools.local_cloud import CommandFailed
from tools.local_stack import LocalStack
from tools.service_api import Api, Away, Refused

ACCOUNTS = "/api/v1/brokers/interactivebrokers"
CONNECTIONS = "/api/v1/connections"
GATEWAY_UNIT = "ibeam.service"
SYMBOL, FAR_BELOW = "AAPL", 1.25  # dollars: no seller comes down to that
FINAL = ("filled", "cancelled", "rejected", "expired")
#: seconds for each thing that is waited for; a busy machine takes a while
PATIENCE = 120.0
LOOK, IBKR_PAUSE = 0.2, 1.0  # seconds between looks: IBKR takes ten requests a second of a session


class Tour:
    """What is shown, step by step. `run` raises CommandFailed; however it ends, `clear` comes after it."""

    def __init__(self, stack: LocalStack, api: Api) -> None:
        self._stack, self._api = stack, api
        self._began = time.monotonic()
        self._step = 0
        self._account: dict[str, Any] | None = None
        self._told: dict[str, str] = {}
        self._clearing = False
        # Of a tour that was killed: the next one finds its account here.
        self._file = stack.cloud.home / "tour.json"

    def run(self) -> None:
        """The whole tour."""
        self._introduce()
        self._clear_former()
        self._connect()
        self._look()
        self._trade()
        self._kill()
        self._recover()
        self._delete()
        self._end()

    def clear(self) -> None:
        """Take the account away if the tour was cut off; says what was left where that fails."""
        if self._account is None:
            return
        self._clearing = True
        account = self._account["account_id"]
        self._line(f"The tour's account {account} is taken away ...")
        try:
            self._remove(account)
            self._line("It is deleted and its droplet is gone; nothing else was touched.")
        except (CommandFailed, KeyboardInterrupt) as failure:
            why = str(failure) or "interrupted"
            self._line(f"It is NOT certain that it is gone ({why}). `make demo` tries again, or:")
            self._line(f'  curl -s -X DELETE -H "$auth" {self._api.url}{ACCOUNTS}/accounts/{account}')

    def _introduce(self) -> None:
        halt = self._api.get("/api/v1/halt")
        if halt["halted"]:
            raise CommandFailed(
                f"Orders are halted by the kill switch ({halt['by']}: {halt['reason']}): lift it "
                "first, in the dashboard (`make dashboard`)."
            )
        self._line(
            "A tour: an IBKR account is connected, trades, loses its gateway, recovers and is deleted.\n"
            "It takes less than a minute. Ctrl-C ends it and takes its account away; others aren't touched.\n"
            "Watch it in the dashboard as well (`make dashboard` gives a link). To make its calls yourself:\n"
            f"  api={self._api.url}/api/v1\n"
            '  auth="Authorization: Bearer $(make -s token)"'
        )

    def _clear_former(self) -> None:
        if not self._file.exists():
            return
        account = json.loads(self._file.read_text())["account_id"]
        self._line(f"\nAn earlier tour was cut off: its account {account} is taken away first.")
        self._remove(account)

    def _connect(self) -> None:
        self._title("Connect a user's IBKR account; the service makes a server (a droplet) for its gateway")
        self._call(
            "POST", "brokers/interactivebrokers/connect", "-H 'Content-Type: application/json' "
            '-d "$(make -s login)"',
        )  # fmt: skip
        # A login of its own, so that the person's is another account.
        username, password = f"tour{secrets.token_hex(4)}", secrets.token_urlsafe(18)
        self._stack.cloud.add_user(username, password, "paper")
        login = {"credentials": {"username": username, "password": password}, "environment": "demo"}
        told = self._account = self._api.post(f"{ACCOUNTS}/connect", login)
        self._file.write_text(json.dumps({"account_id": told["account_id"]}))
        self._saw(f"account {told['account_id']}, droplet {told['service_id'] or 'not numbered yet'}")
        self._call("GET", f"brokers/interactivebrokers/accounts/{told['account_id']}/status")
        self._watch(lambda status, health: status["status"] == "running" and health["ok"])

    def _look(self) -> None:
        self._title("The account is a connection now, with the same calls as the stack's own (`default`)")
        self._call("GET", f"connections/{self._id}/account")
        account = self._patiently(lambda: self._api.get(f"{CONNECTIONS}/{self._id}/account"))
        self._saw(f"{account['id']}: {account['cash']:,.2f} {account['currency']} in cash")

    def _trade(self) -> None:
        self._title("Trade: a quote, an order that fills, and one that is cancelled")
        self._call("GET", f"connections/{self._id}/quotes/{SYMBOL}")
        quote = self._until(
            lambda: self._patiently(lambda: self._api.get(f"{CONNECTIONS}/{self._id}/quotes/{SYMBOL}")),
            lambda found: found["ask"] is not None,
        )
        self._saw(f"{SYMBOL}: {quote['bid']} bid, {quote['ask']} asked")
        self._order({"order_type": "market"}, lambda order: order["status"] in FINAL)
        resting = self._order(
            {"order_type": "limit", "limit_price": FAR_BELOW}, lambda order: order["status"] == "submitted"
        )
        path = f"connections/{self._id}/orders/{resting['id']}"
        self._call("DELETE", path)
        self._api.delete(f"/api/v1/{path}")
        self._order_is(
            self._until(lambda: self._api.get(f"/api/v1/{path}"), lambda one: one["status"] in FINAL)
        )

    def _order(self, fields: dict[str, Any], settled: Callable[[Any], bool]) -> Any:
        order = {"symbol": SYMBOL, "side": "buy", "qty": 1, **fields}
        shown = json.dumps({**order, "client_order_id": "..."}, separators=(",", ":"))
        path = f"connections/{self._id}/orders"
        self._call("POST", path, f"-H 'Content-Type: application/json' -d '{shown}'")
        order["client_order_id"] = f"tour-{secrets.token_hex(6)}"
        placed = self._api.post(f"/api/v1/{path}", order)
        found = placed if settled(placed) else self._until(
            lambda: self._api.get(f"/api/v1/{path}/{placed['id']}"), settled
        )  # fmt: skip
        self._order_is(found)
        return found

    def _kill(self) -> None:
        self._title(
            "Kill the gateway, as a crash would: the service says so, and passes no old numbers off as new"
        )
        machine = f"droplet/{self._droplet()}"
        self._command(f".venv/bin/python -m localcloud kill-unit {machine} {GATEWAY_UNIT}")
        pid = self._stack.cloud.kill_unit(machine, GATEWAY_UNIT)
        self._saw(f"the gateway's process {pid} got SIGKILL")
        self._call("GET", f"connections/{self._id}/health")
        found = self._until(self._health, lambda health: not health["ok"])
        self._tell_link(found)

    def _recover(self) -> None:
        self._title(
            "Bring it back: a paper gateway comes back after two minutes, a live one never by itself; so ask"
        )
        self._call("POST", f"brokers/interactivebrokers/accounts/{self._id}/restart")
        self._api.post(f"{ACCOUNTS}/accounts/{self._id}/restart")
        self._watch(lambda status, health: status["status"] == "running" and health["ok"])
        held = self._patiently(lambda: self._api.get(f"{CONNECTIONS}/{self._id}/positions/{SYMBOL}"))
        self._saw(f"still held: {held['qty']:g} {SYMBOL}")

    def _delete(self) -> None:
        self._title("Delete the account: server, credentials and all")
        number = self._droplet()
        self._call("DELETE", f"brokers/interactivebrokers/accounts/{self._id}")
        account = self._id
        self._remove(account, shown=True)
        accounts = [one["account_id"] for one in self._api.get(f"{ACCOUNTS}/accounts?limit=200")["accounts"]]
        machines = [machine["name"] for machine in self._stack.cloud.machines()]
        if account in accounts or f"droplet/{number}" in machines:
            raise CommandFailed(f"{account} is said to be deleted, and something of it is still there.")
        self._saw(f"left of it: no account, no droplet {number}, no process, nothing that is billed")

    def _end(self) -> None:
        self._line(
            f"\nThat was all, in {time.monotonic() - self._began:.0f} s. Next:\n"
            "  make dashboard             the same by hand, in a browser\n"
            "  make status                what runs now\n"
            "  make logs NAME=service     what the service said of all this\n"
            f"  {self._api.url}/docs  every call of the API\n"
            "  docs/broker.md             the broker package in a program of yours"
        )

    @property
    def _id(self) -> str:
        assert self._account is not None  # _connect has made it
        return str(self._account["account_id"])

    def _remove(self, account: str, shown: bool = False) -> None:
        """Delete an account and wait until its droplet is gone; one that is gone already is fine."""
        path = f"{ACCOUNTS}/accounts/{account}"
        try:
            self._api.delete(path)
            if shown:
                self._watch(lambda status, health: status["status"] == "deleted")
            else:
                self._until(lambda: self._api.get(f"{path}/status")["status"], lambda now: now == "deleted")
        except Refused as refusal:
            if refusal.status != 404:
                raise
        self._account = None
        self._file.unlink(missing_ok=True)

    def _droplet(self) -> int:
        return int(self._api.get(f"{ACCOUNTS}/accounts/{self._id}")["service_id"])

    def _health(self) -> Any:
        return self._api.get(f"{CONNECTIONS}/{self._id}/health")

    def _watch(self, done: Callable[[Any, Any], bool]) -> None:
        """Tell each change of the account's status, and of its connection, until `done(status, health)`."""
        until = time.monotonic() + PATIENCE
        while True:
            status = self._api.get(f"{ACCOUNTS}/accounts/{self._id}/status")
            self._tell(status["status"], status["message"], of="account")
            health = {"ok": False}
            if status["wanted"] != "deleted":
                health = self._health()
                self._tell_link(health)
            if status["status"] == "error":
                raise CommandFailed(f"{self._id} can't go on: {status['message']} ({status['reason']})")
            if done(status, health):
                return
            if time.monotonic() > until:
                raise CommandFailed(
                    f"{self._id} still is {status['status']} after {PATIENCE:.0f} s: {status['message']} "
                    f"`make logs NAME={self._id}` shows what its server says."
                )
            time.sleep(LOOK)

    def _tell_link(self, health: Any) -> None:
        """How the connection is, where that isn't the account's status over again."""
        if health["state"] not in ("provisioning", "initializing", "stopped"):
            reason = f": {health['reason']}" if health["reason"] else ""
            self._tell("connection", health["state"] + reason, of="connection")

    def _tell(self, word: str, text: str, of: str) -> None:
        """What has changed since it was told last."""
        line = f"{word:<13} {text}"
        if self._told.get(of) != line:
            self._saw(line)
        self._told[of] = line

    def _patiently(self, ask: Callable[[], Any]) -> Any:
        """An answer over a connection that has just come up: until it is ready it answers 503."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except (Refused, Away) as failure:
                passing = isinstance(failure, Away) or failure.status in (429, 503)
                if not passing or time.monotonic() > until:
                    raise
            time.sleep(IBKR_PAUSE)

    def _until(self, ask: Callable[[], Any], settled: Callable[[Any], bool]) -> Any:
        until = time.monotonic() + PATIENCE
        while not settled(found := ask()):
            if time.monotonic() > until:
                raise CommandFailed(f"After {PATIENCE:.0f} s it still is {json.dumps(found)[:300]}")
            time.sleep(IBKR_PAUSE)
        return found

    def _order_is(self, order: Any) -> None:
        price = f" at {order['filled_price']}" if order["filled_price"] else ""
        filled = f", {order['filled_qty']:g} filled{price}" if order["filled_qty"] else ""
        self._saw(f"{order['order_type']} order {order['id'][:8]}: {order['status']}{filled}")

    def _title(self, text: str) -> None:
        self._step += 1
        self._line("\n" + summary.painted(f"{self._step}. {text}", summary.BOLD))

    def _call(self, method: str, path: str, more: str = "") -> None:
        verb = "" if method == "GET" or (method == "POST" and " -d " in more) else f"-X {method} "
        self._command(" ".join(f'curl -s {verb}-H "$auth" {more} $api/{path}'.split()))

    def _command(self, text: str) -> None:
        self._line("   " + summary.painted(f"$ {text}", summary.DIM))

    def _saw(self, text: str) -> None:
        self._line(f"   {time.monotonic() - self._began:6.1f} s  {text}")

    def _line(self, text: str) -> None:
        try:
            print(text, flush=True)
        except BrokenPipeError:
            if not self._clearing:  # `| head` has seen enough, but the account is to be taken away
                raise


def demo(stack: LocalStack) -> None:
    """The tour, after `up` where the stack doesn't run. Raises CommandFailed, KeyboardInterrupt."""
    if not is_ready(stack):
        stack.up()
    outputs = stack.outputs()
    if not outputs.get("accounts_url"):
        raise CommandFailed(
            "This stack's service connects no accounts: ibkr:fleet.enabled is false in Pulumi.local.yaml or "
            ".local/overrides.yaml. Set it to true, then `make demo` again."
        )
    tour = Tour(stack, Api(str(outputs["service_url"]), stack.token("user", "trader", "operator")))
    with cache.exclusive(stack.home / "tour.lock", "another tour"):
        try:
            tour.run()
        finally:
            tour.clear()


def is_ready(stack: LocalStack) -> bool:
    """Whether the service runs and has its database."""
    if not stack.cloud.is_running():
        return False
    url = stack.outputs().get("service_url")
    try:
        service_check.get(f"{url}/readyz")
    except (OSError, ValueError):
        return False
    return True
