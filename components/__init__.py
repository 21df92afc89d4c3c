"""What the stacks are made of: one Pulumi component a file."""

from components import sdk

sdk.install()
