"""The Pulumi providers of the local cloud as gRPC servers in the daemon's event loop.

The engine is attached to them with `PULUMI_DEBUG_PROVIDERS=gcp:PORT,digitalocean:PORT,command:PORT`.
Protocol: pulumi/pulumi, proto/pulumi/provider.proto.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import grpc
import grpc.aio
from google.protobuf import any_pb2, empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc, status_pb2

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.command import Command
from localcloud.providers.diff import Change, changes
from localcloud.providers.digitalocean import DigitalOcean
from localcloud.providers.gcp import Gcp
from localcloud.providers.naming import fixed_name, with_name
from localcloud.providers.provider import Provider
from localcloud.providers.resource import CHOSEN, Call, Handler, PartlyCreated, without_chosen
from localcloud.providers.rules import broken_rules
from localcloud.providers.schema import Failure
from localcloud.providers.values import Properties, decode, encode

T = TypeVar("T")

log = logging.getLogger("localcloud.providers")

# What the engine itself allows a message to be (pulumi/pulumi, sdk/go/common/util/rpcutil).
MAX_MESSAGE_BYTES = 400 * 1024 * 1024
FINISH_SECONDS = 10
DISABLED = provider_pb2.CheckRequest.AutonamingOptions.Mode.DISABLE


async def serve_providers(cloud: Cloud) -> dict[str, int]:
    """Start the three providers on free loopback ports; package name to port.

    The servers are kept on the cloud and end with `stop_providers` or the process.
    """
    served: list[tuple[grpc.aio.Server, ProviderServer]] = cloud.extensions.setdefault("providers", [])
    ports = {}
    for provider in (Gcp(cloud), DigitalOcean(cloud), Command(cloud)):
        limits = [
            ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
            ("grpc.max_send_message_length", -1),
        ]
        server = grpc.aio.server(options=limits)
        servicer = ProviderServer(provider)
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(servicer, server)
        ports[provider.package] = server.add_insecure_port("127.0.0.1:0")
        provider.serving(ports[provider.package])
        await server.start()
        served.append((server, servicer))
    return ports


async def stop_providers(cloud: Cloud) -> None:
    """Stop what `serve_providers` started. Calls are cut off; what they had begun is finished first."""
    for server, servicer in cloud.extensions.pop("providers", []):
        await server.stop(grace=None)
        if servicer.under_way:
            await asyncio.wait(servicer.under_way, timeout=FINISH_SECONDS)


class ProviderServer(provider_pb2_grpc.ResourceProviderServicer):
    """One provider on the wire. Its methods have the names and messages of the protocol."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.under_way: set[asyncio.Task[Any]] = set()

    # --- the plugin itself -----------------------------------------------------------------

    async def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.ProviderHandshakeResponse(
            accept_secrets=True, supports_autonaming_configuration=True
        )

    async def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        return plugin_pb2.PluginInfo(version=self.provider.version())

    async def Attach(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.provider.attached(request.address)
        return empty_pb2.Empty()

    async def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        await self.provider.cancel()
        return empty_pb2.Empty()

    async def GetSchema(self, request: Any, context: Any) -> Any:  # noqa: N802
        facts = self.provider.facts
        return provider_pb2.GetSchemaResponse(
            schema=json.dumps({"name": facts.package, "version": self.provider.version()})
        )

    async def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        news = decode(request.news)
        failures = self.provider.check_config(news.values)
        return provider_pb2.CheckResponse(
            inputs=encode(news.values, news.secrets), failures=_failures(failures)
        )

    async def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        config = decode(request.args).values
        failures = self.provider.check_config(config)
        if failures:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "; ".join(f.reason for f in failures))
        self.provider.configure(config)
        return provider_pb2.ConfigureResponse(
            acceptSecrets=True, supportsPreview=True, supports_autonaming_configuration=True
        )

    async def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        arguments = decode(request.args)
        try:
            result = await self.provider.invoke(request.tok, arguments.values)
        except CloudError as error:
            return await self._refuse(context, error, f"invocation of {request.tok}")
        return provider_pb2.InvokeResponse(**{"return": encode(result)})

    async def Call(self, request: Any, context: Any) -> Any:  # noqa: N802
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, f"the local cloud has no method {request.tok}")

    # --- resources -------------------------------------------------------------------------

    async def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        handler = await self._handler(request.urn, context)
        facts = handler.resource_facts
        olds, news = decode(request.olds), decode(request.news)
        checked, failures = self.provider.facts.check(handler.token, without_chosen(news.values))
        options = request.autonaming
        if options.mode != DISABLED:
            checked = with_name(
                facts, checked, olds.values, request.urn, request.randomSeed, options.proposed_name
            )
        told = {failure.property for failure in failures}
        broken = broken_rules(facts, checked, news.secrets) + self.provider.check(handler, checked)
        failures += [failure for failure in broken if failure.property not in told]
        secrets = news.secrets | set(self.provider.facts.secret_paths(handler.token, checked))
        return provider_pb2.CheckResponse(inputs=encode(checked, secrets), failures=_failures(failures))

    async def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        handler = await self._handler(request.urn, context)
        state, new = decode(request.olds).values, decode(request.news).values
        old = decode(request.old_inputs).values if request.HasField("old_inputs") else state
        found = changes(self.provider.facts, handler.token, old, new, state)
        ignored = set(request.ignoreChanges)
        found = [c for c in found if not _ignored(c, ignored)]
        replacing = handler.replacing(handler.complete(old), handler.complete(new)) if found else set()
        return _diff_response(found, replacing, fixed_name(handler.resource_facts, new))

    async def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        handler = await self._handler(request.urn, context)
        given = decode(request.properties)
        if request.preview:
            outputs = handler.outputs(given.values, None)
            return provider_pb2.CreateResponse(properties=self._out(handler, outputs, given))
        try:
            resource = await self._done(
                handler, handler.create_for(Call(request.urn, "", given, peer=context.peer()))
            )
        except PartlyCreated as error:
            return await self._fail_half_way(context, handler, error, given)
        except CloudError as error:
            return await self._refuse(context, error, f"Error creating {handler.noun}")
        return provider_pb2.CreateResponse(
            id=resource.id, properties=self._out(handler, resource.outputs, given)
        )

    async def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        handler = await self._handler(request.urn, context)
        given, old = decode(request.news), decode(request.olds)
        if request.preview:
            outputs = handler.preview_update(request.id, given.values, old.values)
            return provider_pb2.UpdateResponse(properties=self._out(handler, outputs, given))
        try:
            call = Call(request.urn, request.id, given, old, context.peer())
            resource = await self._done(handler, handler.update_for(call))
        except PartlyCreated as error:
            return await self._fail_half_way(context, handler, error, given)
        except CloudError as error:
            return await self._refuse(context, error, f"Error updating {handler.noun} {request.id!r}")
        return provider_pb2.UpdateResponse(properties=self._out(handler, resource.outputs, given))

    async def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        handler = await self._handler(request.urn, context)
        inputs, state = decode(request.old_inputs), decode(request.properties)
        try:
            call = Call(request.urn, request.id, inputs, state, context.peer())
            await self._done(handler, handler.delete_for(call))
        except CloudError as error:
            await self._refuse(context, error, f"Error deleting {handler.noun} {request.id!r}")
        return empty_pb2.Empty()

    async def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        handler = await self._handler(request.urn, context)
        inputs, state = decode(request.inputs), decode(request.properties)
        try:
            resource = await handler.read_for(Call(request.urn, request.id, inputs, state, context.peer()))
        except CloudError as error:
            return await self._refuse(context, error, f"Error reading {handler.noun} {request.id!r}")
        if resource is None:
            return provider_pb2.ReadResponse()
        secrets = inputs.secrets | state.secrets
        given = Properties(resource.inputs, secrets)
        marked = secrets | set(self.provider.facts.secret_paths(handler.token, resource.inputs))
        return provider_pb2.ReadResponse(
            id=resource.id,
            properties=self._out(handler, resource.outputs, given),
            inputs=encode(resource.inputs, marked),
        )

    async def _done(self, handler: Handler, work: Coroutine[Any, Any, T]) -> T:
        """The outcome of an operation, which goes on by itself when the engine goes away meanwhile."""
        if not handler.outlives_the_engine:
            return await work
        task = asyncio.ensure_future(work)
        self.under_way.add(task)
        task.add_done_callback(self._finished)
        return await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self.under_way.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.info("an operation failed: %s", type(task.exception()).__name__)

    # --- shared ----------------------------------------------------------------------------

    async def _handler(self, urn: str, context: Any) -> Handler:
        token = urn.split("::")[2].rsplit("$", 1)[-1]
        handler = self.provider.handlers.get(token)
        if handler is None:
            await context.abort(
                grpc.StatusCode.UNIMPLEMENTED,
                f"the local cloud doesn't have {token}; it has {', '.join(sorted(self.provider.handlers))}",
            )
            raise AssertionError("abort raises")
        return handler

    def _out(self, handler: Handler, outputs: Mapping[str, Any], given: Properties) -> Any:
        values = {name: value for name, value in outputs.items() if name != CHOSEN}
        secrets = given.secrets | set(self.provider.facts.secret_paths(handler.token, values))
        if handler.spreads_secrets and secrets:
            secrets |= {(name,) for name in values}
        return encode(values, secrets)

    async def _refuse(self, context: Any, error: CloudError, doing: str) -> Any:
        await context.abort(grpc.StatusCode.UNKNOWN, self.provider.words(doing, error))

    async def _fail_half_way(
        self, context: Any, handler: Handler, error: PartlyCreated, given: Properties
    ) -> None:
        """Tell the engine that the resource exists although creating it failed."""
        reason = self.provider.words(f"Error waiting for {handler.noun}", error)
        detail = any_pb2.Any()
        detail.Pack(
            provider_pb2.ErrorResourceInitFailed(
                id=error.resource.id,
                properties=self._out(handler, error.resource.outputs, given),
                inputs=encode(given.values, given.secrets),
                reasons=[reason],
            )
        )
        code = grpc.StatusCode.UNKNOWN
        status = status_pb2.Status(code=code.value[0], message=reason, details=[detail])
        trailing = (("grpc-status-details-bin", status.SerializeToString()),)
        await context.abort(code, reason, trailing)


def _failures(failures: list[Failure]) -> list[Any]:
    return [provider_pb2.CheckFailure(property=f.property, reason=f.reason) for f in failures]


def _ignored(change: Change, ignored: set[str]) -> bool:
    return any(change.property == i or change.property.startswith((f"{i}.", f"{i}[")) for i in ignored)


def _diff_response(found: list[Change], replacing: set[str], fixed: bool) -> Any:
    kinds = provider_pb2.PropertyDiff.Kind
    detailed = {}
    for change in found:
        replaces = change.replaces or change.path[0] in replacing
        kind = kinds.Value(change.kind.upper() + ("_REPLACE" if replaces else ""))
        detailed[change.property] = provider_pb2.PropertyDiff(kind=kind, inputDiff=True)
    replaces_list = [c.property for c in found if c.replaces or c.path[0] in replacing]
    response = provider_pb2.DiffResponse
    return response(
        changes=response.DIFF_SOME if found else response.DIFF_NONE,
        diffs=sorted({str(c.path[0]) for c in found}),
        replaces=replaces_list,
        # Also without a change that replaces: the engine makes anew what an interrupted replacement had
        # deleted, and create-first it would then delete the "original", which has the same name and id.
        deleteBeforeReplace=fixed,
        detailedDiff=detailed,
        hasDetailedDiff=True,
    )
