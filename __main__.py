"""The Pulumi program: reads the settings, declares the stack, exports its outputs."""

from __future__ import annotations

import pulumi

from stacks import settings as configuration


def main() -> None:
    """Declares the stack that the engine runs."""
    settings = configuration.read()
    from stacks.declaration import declare

    for name, value in declare(settings).items():
        pulumi.export(name, value)


main()
