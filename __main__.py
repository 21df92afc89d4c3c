"""The Pulumi program: reads the settings, declares the stack, exports its outputs."""

from __future__ import annotations

import gc

import pulumi

# The program lives for seconds: collecting as often as by default costs more than it frees.
gc.set_threshold(100_000)

from stacks import settings as configuration  # noqa: E402


def main() -> None:
    """Declares the stack that the engine runs."""
    settings = configuration.read()
    from stacks.declaration import declare

    for name, value in declare(settings).items():
        pulumi.export(name, value)


main()
