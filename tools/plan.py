"""A stack's plan without an engine: runs its declaration under Pulumi's mocks, and gives what it registered.

What can be decided so, without a cloud, an account or a secret: which resources there are, with which inputs,
which of them are secret, and what depends on what. Tests look at plans, and `make cost` prices them.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pulumi
from pulumi.runtime import rpc
from pulumi.runtime.mocks import MockMonitor
from pulumi.runtime.proto import resource_pb2

from stacks.declaration import declare
from stacks.settings import Settings

SIGNATURE = "4dabf18193072939515e22adb298388d"  # Pulumi's mark of a special value
NUMBER = "123456789"
# What a person puts in the place of the shipped files' placeholders.
OWN_VALUES: dict[str, dict[str, Any]] = {
    "environment": {
        "gcp:project": "ibkr-staging-1",
        "ibkr:api.image": "us-west1-docker.pkg.dev/ibkr-staging-1/ibkr/api@sha256:" + 64 * "c",
        "ibkr:auth.issuer": "https://login.trader.test/",
        "ibkr:auth.jwksUrl": "https://login.trader.test/jwks.json",
        "ibkr:gateway.software.gatewaySha256": 64 * "a",
        "ibkr:gateway.software.ibcSha256": 64 * "b",
        "ibkr:ibeam.container": "voyz/ibeam:0.5.12@sha256:" + 64 * "d",
    },
    "foundation": {
        "gcp:project": "ibkr-staging-1",
        "ibkr:ci.repository": "trader/ibkr",
        "ibkr:ci.stateBucket": "ibkr-state-1",
    },
}


@dataclass(frozen=True)
class Registered:
    """One resource as the engine got it.

    Secret inputs are unwrapped in `inputs`, their paths are in `secrets`. `waits_for` are the names of the
    resources that it depends on, and `options` the engine's: protect, deleteBeforeReplace and so on.
    """

    type: str
    name: str
    inputs: dict[str, Any]
    secrets: frozenset[str]
    waits_for: frozenset[str]
    options: dict[str, Any]


@dataclass
class Plan:
    """Everything that a declaration registered, and its outputs."""

    resources: list[Registered] = field(default_factory=list)
    outputs: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str) -> list[Registered]:
        """The resources of a type, or of all types that end so ("instance:Instance")."""
        return [found for found in self.resources if found.type.endswith(kind)]

    def one(self, kind: str, name: str = "") -> Registered:
        """The one resource of a type whose name contains `name`."""
        found = [resource for resource in self.of(kind) if name in resource.name]
        assert len(found) == 1, f"{kind} {name}: {[resource.name for resource in found]}"
        return found[0]


class Cloud(pulumi.runtime.Mocks):
    """Answers as the clouds would, with ids of the real form."""

    def call(self, args: pulumi.runtime.MockCallArgs) -> Any:
        assert args.token.endswith(":getProject"), args.token
        return {"id": f"projects/{args.args['projectId']}", "number": NUMBER}

    def new_resource(self, args: pulumi.runtime.MockResourceArgs) -> tuple[str, dict[str, Any]]:
        if args.typ == "pulumi:pulumi:StackReference":
            return args.name, {"name": args.name, "outputs": FOUNDATION_OUTPUTS, "secretOutputNames": []}
        return outputs_of(args.typ, args.name, unwrap(args.inputs, "", set()))


class Engine(MockMonitor):
    """The engine's side: records each custom resource with its options."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(Cloud())
        self.plan = plan

    def RegisterResource(self, request: resource_pb2.RegisterResourceRequest) -> Any:  # noqa: N802
        if request.custom and not request.type.startswith("pulumi:"):
            secrets: set[str] = set()
            inputs = unwrap(rpc.deserialize_properties(request.object), "", secrets)
            options = {
                "protect": request.protect,
                "deleteBeforeReplace": request.deleteBeforeReplace,
                "replaceOnChanges": list(request.replaceOnChanges),
                "additionalSecretOutputs": list(request.additionalSecretOutputs),
                "retainOnDelete": request.retainOnDelete,
                "parent": request.parent,
            }
            waits_for = frozenset(urn.rpartition("::")[2] for urn in request.dependencies)
            self.plan.resources.append(
                Registered(request.type, request.name, inputs, frozenset(secrets), waits_for, options)
            )
        return super().RegisterResource(request)  # type: ignore[no-untyped-call]


FOUNDATION_OUTPUTS = {
    "network_id": "projects/ibkr-staging-1/global/networks/ibkr",
    "registry_url": "us-west1-docker.pkg.dev/ibkr-staging-1/ibkr",
    "database_instance": "ibkr-instance-0a1b2c3",
    "database_url_secret": "ibkr-database-url",
    "database_url_version": "1",
    "fleet_key": "projects/ibkr-staging-1/locations/us-west1/keyRings/ibkr-fleet-key-1a/cryptoKeys/key-2b",
}


def unwrap(value: Any, path: str, secrets: set[str]) -> Any:
    """Plain data; the paths of what was marked secret are added to `secrets`."""
    if isinstance(value, dict):
        if SIGNATURE in value:
            secrets.add(path)
            return unwrap(value.get("value"), path, secrets)
        return {key: unwrap(item, f"{path}.{key}" if path else key, secrets) for key, item in value.items()}
    if isinstance(value, list):
        return [unwrap(item, f"{path}[{number}]", secrets) for number, item in enumerate(value)]
    if isinstance(value, float) and value.is_integer():
        return int(value)  # mocks deliver every number as a float
    return value


def outputs_of(kind: str, name: str, inputs: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """A resource's id and state, as far as the program reads them."""
    given = inputs.get("name") or inputs.get("accountId") or inputs.get("secretId") or name
    identity = f"projects/ibkr/{kind.split('/')[-1].split(':')[0]}s/{given}"
    state = {**inputs, "name": given}
    match kind.split(":")[-1]:
        case "Network":
            identity = f"projects/ibkr/global/networks/{given}"
        case "Address":
            state |= {
                "address": inputs.get("address") or ADDRESSES[inputs["addressType"]],
                "selfLink": identity,
            }
        case "Account":
            email = f"{given}@ibkr.iam.gserviceaccount.com"
            identity = f"projects/ibkr/serviceAccounts/{email}"
            state |= {"email": email, "member": f"serviceAccount:{email}", "name": identity}
        case "Secret":
            identity = f"projects/ibkr/secrets/{given}"
        case "SecretVersion":
            identity = f"projects/{NUMBER}/secrets/{inputs['secret'].split('/')[-1]}/versions/1"
            state |= {"name": identity, "version": "1"}
        case "DatabaseInstance":
            state |= {"privateIpAddress": "10.11.0.3"}
        case "Service" if "cloudrunv2" in kind:
            state |= {"uri": f"https://{given}-abc-uw.a.run.app"}
        case "KeyRing":
            identity = f"projects/ibkr/locations/us-west1/keyRings/{given}"
        case "CryptoKey":
            identity = f"{inputs['keyRing']}/cryptoKeys/{given}"
        case "UptimeCheckConfig":
            identity = f"projects/ibkr/uptimeCheckConfigs/{name}-1a2b3c"
            state |= {"name": identity, "uptimeCheckId": f"{name}-1a2b3c"}
        case "Repository":
            state |= {"registryUri": f"us-west1-docker.pkg.dev/ibkr/{given}"}
        case "Droplet":
            state |= {"ipv4Address": "203.0.113.20"}
        case "Command":
            state |= {"stdout": "what-the-command-printed\n"}
        case _:
            pass
    return identity, state


ADDRESSES = {"INTERNAL": "10.10.0.5", "EXTERNAL": "203.0.113.7"}


def plan_of(settings: Settings) -> Plan:
    """What a stack with these settings declares."""
    plan = Plan()
    # Pulumi keeps its state for the running program in the event loop's context; each plan gets its own.
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        engine = Engine(plan)
        pulumi.runtime.set_mocks(
            engine.mocks, project="ibkr", stack=settings.stack, preview=False, monitor=engine
        )

        @pulumi.runtime.test  # type: ignore[untyped-decorator]
        async def run() -> pulumi.Output[Any]:
            outputs = await declare(settings)
            return pulumi.Output.all(**outputs).apply(plan.outputs.update)

        run()
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    plan.resources.sort(key=lambda found: (found.type, found.name))
    return plan


def place(tree: dict[str, Any], path: str, value: Any) -> None:
    """Sets a value in a configuration, in place. The key may go into an object: "ibkr:gateway.port"."""
    first, *parts = path.split(".") if path.startswith("ibkr:") else [path]
    for key, inner in zip([first, *parts], [*parts, None], strict=True):
        if inner is None:
            tree[key] = value
        else:
            tree = tree.setdefault(key, {})


def as_text(tree: Mapping[str, Any]) -> dict[str, str]:
    """A configuration as the engine passes it: objects as JSON, and what is None left out."""
    return {
        key: value if isinstance(value, str) else json.dumps(value)
        for key, value in tree.items()
        if value is not None
    }
