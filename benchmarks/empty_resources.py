"""What the engine alone needs: a provider that echoes, and a program that declares N empty resources.

`python -m benchmarks.empty_resources serve` runs the provider and prints its port; the program is written
by `program()`. The time of `pulumi up` over it is the floor that the stacks' own times are compared with.
"""

import asyncio
import sys
from pathlib import Path

import grpc
from google.protobuf import empty_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

PROGRAM = """import os
import pulumi
for n in range(int(os.environ["EMPTY_RESOURCES"])):
    pulumi.CustomResource("echo:index:Empty", f"empty-{n}", {})
"""


class Echo(provider_pb2_grpc.ResourceProviderServicer):
    """Accepts every resource and gives back its inputs."""

    async def Attach(self, request, context):
        return empty_pb2.Empty()

    async def Handshake(self, request, context):
        return provider_pb2.ProviderHandshakeResponse(accept_secrets=True, accept_outputs=True)

    async def GetPluginInfo(self, request, context):
        return plugin_pb2.PluginInfo(version="1.0.0")

    async def CheckConfig(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    async def DiffConfig(self, request, context):
        return provider_pb2.DiffResponse()

    async def Configure(self, request, context):
        return provider_pb2.ConfigureResponse(acceptSecrets=True, supportsPreview=True)

    async def Check(self, request, context):
        return provider_pb2.CheckResponse(inputs=request.news)

    async def Diff(self, request, context):
        return provider_pb2.DiffResponse(changes=provider_pb2.DiffResponse.DIFF_NONE)

    async def Create(self, request, context):
        return provider_pb2.CreateResponse(id=request.urn, properties=request.properties)

    async def Delete(self, request, context):
        return empty_pb2.Empty()

    async def Cancel(self, request, context):
        return empty_pb2.Empty()


async def serve() -> None:
    server = grpc.aio.server()
    provider_pb2_grpc.add_ResourceProviderServicer_to_server(Echo(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(port, flush=True)
    await server.wait_for_termination()


def write_program(folder: Path) -> None:
    """A Pulumi project whose program declares `$EMPTY_RESOURCES` empty resources."""
    (folder / "Pulumi.yaml").write_text("name: empty\nruntime: python\n")
    (folder / "__main__.py").write_text(PROGRAM)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        asyncio.run(serve())
    else:
        sys.exit("usage: python -m benchmarks.empty_resources serve")
