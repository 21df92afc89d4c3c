"""Per-user IBeam droplets and what machines do at their first boot.

`spec` and `cloud_init` are pure and import nothing heavier than PyYAML: the Pulumi program and the
running service both call them.
"""
