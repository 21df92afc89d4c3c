"""A provider: its facts, its handlers, and how it is configured and speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any, ClassVar

from localcloud.cloud import Cloud, CloudError
from localcloud.providers.resource import Handler
from localcloud.providers.schema import Failure, load_facts

Function = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


class Provider:
    """One of `gcp`, `digitalocean` and `command`."""

    package: ClassVar[str]

    def __init__(self, cloud: Cloud, handlers: Iterable[type[Handler]]) -> None:
        self.cloud = cloud
        self.facts = load_facts(self.package)
        self.handlers = {kind.token: kind(cloud, self.facts) for kind in handlers}
        self.functions: dict[str, Function] = {}

    def version(self) -> str:
        """Of the SDK that is installed here, if it is the release that the facts are of.

        The engine warns when a provider is older than the SDK of the program.
        """
        try:
            installed = version(f"pulumi-{self.package}")
        except PackageNotFoundError:
            installed = ""
        return installed if installed.startswith(f"{self.facts.version}.") else f"{self.facts.version}.0"

    def check_config(self, config: dict[str, Any]) -> list[Failure]:
        """Why this provider can't run under a configuration."""
        return []

    def configure(self, config: dict[str, Any]) -> None:
        """Take a configuration that `check_config` accepted."""

    def check(self, handler: Handler, inputs: dict[str, Any]) -> list[Failure]:
        """What is refused at preview beyond the facts."""
        return list(handler.check(inputs))

    async def invoke(self, token: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Call a provider function. Raises `CloudError` 501 for one that isn't built."""
        function = self.functions.get(token)
        if function is None:
            known = ", ".join(sorted(self.functions)) or "none"
            raise CloudError(501, f"the local cloud doesn't have the function {token}; it has {known}")
        return await function(arguments)

    async def cancel(self) -> None:
        """The engine asks to give up what is under way."""
        for handler in self.handlers.values():
            await handler.cancel()

    def attached(self, engine_address: str) -> None:
        """An engine has attached itself; it takes log messages at this address."""

    def words(self, doing: str, error: CloudError) -> str:
        """A refusal as the real provider prints it."""
        return f"{doing}: {error.message}"

    def serving(self, port: int) -> None:
        """The provider is served at this loopback port."""
