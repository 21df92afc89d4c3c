"""The options that a component's children get."""

from __future__ import annotations

import pulumi


def child_options(
    component: pulumi.ComponentResource, opts: pulumi.ResourceOptions | None
) -> pulumi.ResourceOptions:
    """The component as parent, and what the component itself was told to wait for.

    Pulumi doesn't hand a component's `depends_on` down: without this, children would be made at once.
    """
    return pulumi.ResourceOptions(parent=component, depends_on=opts.depends_on if opts else None)
