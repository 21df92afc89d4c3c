"""The stacks: settings, components, plans."""
