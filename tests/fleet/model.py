"""A world of droplets with their agents, in memory, that counts what must never happen.

The reconciler and its database are the real ones; DigitalOcean and the agents are these. `Effects` stands
before and after everything that has an effect, so that a test can end a process at any of these points.
"""

from __future__ import annotations

import hashlib
import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

from sqlalchemy import Engine, text, update

from broker.fleet.agents import AgentUnreachable, Endpoint, Login, PushRefused
from broker.fleet.decide import Probe, Readiness
from broker.fleet.digitalocean import Droplet, Locked, NotFound, Priority, QuotaReached, Room
from broker.fleet.enrolment import Enroller, EnrolmentLater, EnrolmentRefused
from broker.fleet.keys import FleetKeys
from broker.fleet.models import broker_accounts, enrolments
from broker.fleet.pinned import CertificateChanged
from broker.fleet.reconciler import FleetSettings, Reconciler
from broker.fleet.repository import FleetLease, Repository
from broker.fleet.spec import DropletSettings, DropletSpec
from broker.fleet.vault import Vault

PUSH_KEY = "A" * 43 + "="


class Killed(BaseException):
    """The process is gone: nothing after this has any effect."""


class Effects:
    """Counts effects, and ends the process at the chosen one."""

    def __init__(self) -> None:
        self.count = 0
        self.kill_at: int | None = None
        self.dead = False
        self.names: list[str] = []
        self._lock = threading.Lock()

    def reach(self, name: str) -> None:
        with self._lock:
            if self.dead:
                raise Killed
            self.names.append(name)
            self.count += 1
            if self.kill_at is not None and self.count >= self.kill_at:
                self.dead = True
                raise Killed

    def wrap(self, target: Any, *methods: str) -> Any:
        """The object with these methods (all, if none is given) between two points."""
        return _Wrapped(target, self, methods)


class _Wrapped:
    def __init__(self, target: Any, effects: Effects, methods: tuple[str, ...]) -> None:
        self._target, self._effects, self._methods = target, effects, methods

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if not callable(found) or (self._methods and name not in self._methods):
            return found

        def call(*arguments: Any, **named: Any) -> Any:
            self._effects.reach(f"before {name}")
            try:
                result = found(*arguments, **named)
            except Exception:
                self._effects.reach(f"after failed {name}")
                raise
            self._effects.reach(f"after {name}")
            return result

        return call


WRITES = (
    "adopt", "begin_create", "begin_push", "change", "condemn", "forget", "gone", "note", "note_checked",
    "note_seen", "quarantine",
)  # fmt: skip


@dataclass
class Machine:
    """A droplet and the agent on it."""

    droplet: Droplet
    user_data: str = field(repr=False, default="")
    listed: bool = True
    #: left out of lists, although it was in them before
    hidden: bool = False
    certificate: str = ""
    account: str = ""
    enrolment_token: str = field(repr=False, default="")
    credentials: tuple[str, str] | None = field(repr=False, default=None)
    token: str = field(repr=False, default="")
    sequence: int = 0
    restarted: int = 0
    logged_in: bool = False
    asked_to_enrol: bool = False


class World:
    """DigitalOcean and the agents, as `Droplets` and `Agents`."""

    def __init__(self) -> None:
        self.machines: dict[int, Machine] = {}
        self.deleted: list[int] = []
        self.foreign: set[int] = set()
        self.problems: list[str] = []
        self.limit = 1000
        self.fail: dict[str, list[Exception]] = {}
        self.lost_creates = 0
        self.calls: list[str] = []
        self.readiness: dict[str, Probe] = {}
        self.working: bool | None = False
        self.lag = False
        self.pushes = self.restarts = 0
        self.lose_answers = 0
        self._numbers = itertools.count(101)
        self._lock = threading.RLock()
        self.may_delete: Callable[[int], bool] = lambda _number: True

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail.get(name):
            raise self.fail[name].pop(0)

    def sign_with(self, sign: Any) -> None:
        """Nothing is signed in here."""

    # Droplets

    def list_by_tag(self, tag: str, priority: Priority) -> list[Droplet]:
        with self._lock:
            self._call("list")
            return [m.droplet for m in self._shown() if tag in m.droplet.tags]

    def find_by_name(self, name: str, priority: Priority) -> list[Droplet]:
        with self._lock:
            self._call("find")
            return [m.droplet for m in self._shown() if m.droplet.name == name]

    def _shown(self) -> list[Machine]:
        return [m for m in self.machines.values() if m.listed and not m.hidden]

    def get(self, droplet_id: int, priority: Priority) -> Droplet:
        with self._lock:
            self._call("get")
            if droplet_id not in self.machines:
                raise NotFound("")
            return self.machines[droplet_id].droplet

    def create(self, spec: DropletSpec, priority: Priority) -> Droplet:
        with self._lock:
            if self.fail.get("create") and not isinstance(self.fail["create"][0], LostError):
                self._call("create")
            self.calls.append("create")
            if len(self.machines) >= self.limit:
                raise QuotaReached("")
            number = next(self._numbers)
            droplet = Droplet(number, spec.name, "new", False, "", spec.region, spec.size, spec.tags, "")
            self.machines[number] = Machine(
                droplet, spec.user_data, listed=not self.lag, account=droplet.tag("account")
            )
            if self.fail.get("create"):
                raise self.fail["create"].pop(0).__cause__ or AssertionError
            return droplet

    def delete(self, droplet_id: int, priority: Priority) -> None:
        with self._lock:
            self._call("delete")
            if droplet_id not in self.machines:
                return
            if self.machines[droplet_id].droplet.locked:
                raise Locked("")
            if droplet_id in self.foreign:
                self.problems.append(f"foreign droplet {droplet_id} was deleted")
            if not self.may_delete(droplet_id):
                self.problems.append(f"droplet {droplet_id} was deleted without a tombstone")
            self.deleted.append(droplet_id)
            del self.machines[droplet_id]

    def act(self, droplet_id: int, kind: str, priority: Priority) -> int:
        with self._lock:
            self._call("act")
            if droplet_id not in self.machines:
                raise NotFound("")
            if droplet_id in self.foreign:
                self.problems.append(f"foreign droplet {droplet_id} was switched")
            machine = self.machines[droplet_id]
            machine.droplet = replace(machine.droplet, status="active" if kind == "power_on" else "off")
            self._empty(machine)
            return 1

    def action_status(self, droplet_id: int, action_id: int, priority: Priority) -> str:
        with self._lock:
            self._call("action_status")
            return "completed"

    def room(self, size: str, region: str, image: str, priority: Priority) -> Room:
        with self._lock:
            self._call("room")
            return Room("", "", self.limit - len(self.machines), 6.0)

    # Agents

    def _at(self, endpoint: Endpoint) -> Machine:
        for machine in self.machines.values():
            if machine.droplet.address == endpoint.address and machine.droplet.status == "active":
                if machine.certificate != endpoint.certificate_sha256:
                    raise CertificateChanged
                return machine
        raise AgentUnreachable

    def certificate(self, address: str) -> str:
        with self._lock:
            for machine in self.machines.values():
                if machine.droplet.address == address and machine.droplet.status == "active":
                    return machine.certificate
            raise AgentUnreachable

    def holds_login(self, address: str) -> bool:
        with self._lock:
            return any(m.credentials for m in self.machines.values() if m.droplet.address == address)

    def push(self, endpoint: Endpoint, account_id: str, login: Login, sequence: int, now: int) -> None:
        with self._lock:
            self._call("push")
            machine = self._at(endpoint)
            if machine.account != account_id or sequence <= machine.sequence:
                raise PushRefused
            if machine.droplet.id in self.foreign:
                self.problems.append(f"foreign droplet {machine.droplet.id} got credentials")
            machine.sequence = sequence
            machine.credentials, machine.token = (login.username, login.password), login.gateway_token
            self.pushes += 1
            holders = [
                m.droplet.id for m in self.machines.values() if m.account == account_id and m.credentials
            ]
            if len(holders) > 1:
                self.problems.append(f"droplets {holders} of {account_id} hold credentials at once")

    def restart(self, endpoint: Endpoint, account_id: str, sequence: int, now: int) -> None:
        with self._lock:
            self._call("restart")
            machine = self._at(endpoint)
            if sequence != machine.restarted:
                if sequence <= machine.sequence:
                    raise PushRefused
                machine.sequence = machine.restarted = sequence
                machine.logged_in = False
                self.restarts += 1
            if self.lose_answers:
                self.lose_answers -= 1
                raise AgentUnreachable

    def probe(self, endpoint: Endpoint) -> Probe:
        with self._lock:
            try:
                machine = self._at(endpoint)
            except AgentUnreachable:
                return Probe(Readiness.UNREACHABLE)
            except CertificateChanged:
                return Probe(Readiness.CERTIFICATE_CHANGED)
            if machine.credentials is None or machine.token != endpoint.token:
                return Probe(Readiness.NO_CREDENTIALS)
            if machine.account in self.readiness:
                return self.readiness[machine.account]
            return Probe(Readiness.READY if machine.logged_in else Readiness.NOT_LOGGED_IN)

    def logs(self, endpoint: Endpoint, lines: int) -> list[str]:
        return []

    def working_orders(self, endpoint: Endpoint) -> bool | None:
        return self.working

    # what happens by itself

    def _empty(self, machine: Machine) -> None:
        machine.credentials, machine.token, machine.logged_in = None, "", False

    def proceed(self, enroller: Enroller | None) -> None:
        """Droplets come up, agents enrol, gateways log in, lists catch up."""
        for number, machine in sorted(self.machines.items()):
            with self._lock:
                machine.listed = True
                if machine.droplet.status == "new":
                    address = f"10.0.{number // 250}.{number % 250}"
                    machine.droplet = replace(machine.droplet, status="active", address=address)
                    machine.certificate = digest_of(number)
                machine.logged_in = machine.credentials is not None
            if number not in self.foreign and machine.droplet.status == "active" and enroller:
                self.enrol(machine, enroller)

    def enrol(self, machine: Machine, enroller: Enroller) -> None:
        if machine.asked_to_enrol or not machine.user_data:
            return
        try:
            enroller.enrol(machine.account, token_of(machine.user_data), pem_of(machine.droplet.id))
        except EnrolmentLater:
            return
        except EnrolmentRefused:
            pass
        machine.asked_to_enrol = True

    def add_foreign(self, *tags: str, name: str = "x") -> int:
        """Somebody else's droplet, up and running."""
        number = next(self._numbers)
        droplet = Droplet(number, name, "active", False, f"10.9.0.{number % 250}", "nyc1", "s", tags, "")
        account = droplet.tag("account")
        self.machines[number] = Machine(droplet, certificate=digest_of(number), account=account)
        self.foreign.add(number)
        return number


class LostError(Exception):
    """The create is carried out, and then its cause is raised."""


_CERTIFICATES: dict[int, str] = {}


def pem_of(number: int) -> str:
    """A certificate of its own for each droplet, made once."""
    if number not in _CERTIFICATES:
        from tests.fleet.certificates import make_certificate

        _CERTIFICATES[number] = make_certificate("127.0.0.1")[1].decode()
    return _CERTIFICATES[number]


def digest_of(number: int) -> str:
    import ssl

    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem_of(number))).hexdigest()


def token_of(user_data: str) -> str:
    """The enrolment token in a droplet's cloud-init."""
    import base64
    import json

    import yaml

    for file in yaml.safe_load(user_data)["write_files"]:
        if file["path"].endswith("agent.json"):
            raw = file["content"]
            text_ = base64.b64decode(raw).decode() if "64" in file.get("encoding", "") else raw
            return str(json.loads(text_)["enrolment_token"])
    raise AssertionError("no agent.json")


class Fleet:
    """The real reconciler on a real database over a world, with people to alarm."""

    def __init__(self, engine: Engine, vault: Vault, world: Any = None, stack: str = "test") -> None:
        self.engine, self.vault = engine, vault
        self.world: Any = world or World()
        self.keys = FleetKeys(engine, vault)
        self.world.sign_with(self.keys.sign)
        self.repository = Repository(engine, vault, self.keys)
        self.alarms: list[tuple[str, str]] = []
        self.effects = Effects()
        self.settings = FleetSettings(
            stack,
            "https://service.example",
            self.keys.push_key,
            DropletSettings("203.0.113.9"),
            probes=4,
            steps=2,
        )
        self.world.may_delete = self._has_tombstone
        self.start()

    @classmethod
    def over(cls, former: Fleet) -> Fleet:
        """Another service over the same database and world, that remembers nothing."""
        return cls(former.engine, former.vault, former.world, former.settings.stack)

    def start(self, lease_seconds: float = 60.0) -> Reconciler:
        """A new process: nothing but the database and the world is left of the former."""
        with self.engine.begin() as db:  # the former's lease has run out
            db.execute(text("update fleet_lease set expires_at = clock_timestamp()"))
        self.effects = Effects()
        self.lease = FleetLease(self.engine, self.settings.stack, lease_seconds)
        self.reconciler = self.make(self.effects, self.lease)
        self.enroller = Enroller(
            self.repository, self.world, self.world, lambda kind, said: self.alarms.append((kind, said))
        )
        return self.reconciler

    def make(self, effects: Effects, lease: FleetLease, droplets: Any = None) -> Reconciler:
        return Reconciler(
            self.settings,
            effects.wrap(self.repository, *WRITES),
            effects.wrap(droplets or self.world, "create", "delete", "act"),
            effects.wrap(self.world, "push", "restart"),
            lease,
            lambda kind, said: self.alarms.append((kind, said)),
        )

    def connect(self, user: str = "ada", environment: str = "demo", name: str = "ib", **more: Any) -> str:
        return self.repository.connect(user, environment, name, "secret", user, **more).id

    def pass_(self) -> Any:
        told = self.reconciler.run_pass()
        self.world.proceed(self.enroller)
        return told

    def passes(self, count: int = 8) -> None:
        for _ in range(count):
            self.pass_()

    def until(self, account: str, status: str, reason: str = "", most: int = 12) -> None:
        """Passes until an account has come to rest with that status."""
        for _ in range(most):
            if self.status(account) == (status, reason) and self.pass_().moving == 0:
                if self.status(account) == (status, reason):
                    return
                continue
            self.pass_()
        raise AssertionError(f"{account} is {self.status(account)}, not {status} {reason}")

    def drop(self, account: str) -> None:
        """As if the account had never been: quicker than a delete."""
        with self.engine.begin() as db:
            gone = update(broker_accounts).where(broker_accounts.c.id == account)
            db.execute(gone.values(wanted="deleted", status="deleted"))
        self.world.machines = {n: m for n, m in self.world.machines.items() if m.account != account}

    def of(self, account: str) -> Any:
        found = self.repository.get(account)
        assert found is not None
        return found

    def status(self, account: str) -> tuple[str, str]:
        found = self.of(account)
        return found.status, found.status_reason

    def advance(self, **since: float) -> None:
        """Time passes: all that was written moves into the past."""
        passed = timedelta(**since)
        columns = (
            "status_since", "create_started_at", "action_since", "login_since", "retry_at",
            "restart_wanted_at", "last_used_at", "created_at",
        )  # fmt: skip
        with self.engine.begin() as db:
            db.execute(update(broker_accounts).values({c: broker_accounts.c[c] - passed for c in columns}))
            db.execute(update(enrolments).values(expires_at=enrolments.c.expires_at - passed))
            db.execute(text("update fleet_lease set expires_at = clock_timestamp()"))

    def alive(self, account: str) -> list[int]:
        return sorted(
            n for n, m in self.world.machines.items() if m.account == account and n not in self.world.foreign
        )

    def _has_tombstone(self, number: int) -> bool:
        with self.engine.connect() as db:
            query = text("select 1 from fleet_tombstones where droplet_id = :number")
            return db.execute(query, {"number": number}).first() is not None
