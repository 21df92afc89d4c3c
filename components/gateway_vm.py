"""The IB Gateway VM: one machine without a public address, for one gateway or two, that reads logins itself.

Its metadata holds the *names* of the secret versions with the IBKR credentials, never the credentials:
metadata is readable to whoever may look at the instance. The VM's own service account reads the values at
each start. The reserved internal address stays when the VM is replaced, and so do the gateway's settings,
on a disk of their own; `IBKR_GATEWAY_HOST` and IBKR's session survive.

It leaves out who may reach it (`gateway_firewall`, `operator_access`) and the secret itself (`secret`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

import pulumi
import pulumi_gcp as gcp

from broker.fleet.cloud_init import Values, render
from components.options import child_options


@dataclass(frozen=True, slots=True)
class GatewayArgs:
    """One gateway on the machine. `values` are its own in cloud-init/ib-gateway.yaml, but for its login."""

    credentials_version: pulumi.Input[str]
    values: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class GatewayVmArgs:
    """`user_data_values` are those of cloud-init/ib-gateway.yaml, without what the component knows itself.

    `software` is where installer and zip come from; the machine may read those that are gs:// objects, in
    buckets of its own project. `ready` must exist before the first boot: the secrets' versions and the VM's
    grants on them, and the way out to the internet.
    """

    service_account: gcp.serviceaccount.Account
    gateways: Sequence[GatewayArgs]
    user_data_values: Values
    software: Sequence[str]
    project: str
    region: str
    zone: str
    subnet_id: pulumi.Input[str]
    machine_type: str
    image: str
    boot_disk_gb: int
    settings_disk_gb: int
    address: IPv4Address | None
    protect_settings: bool
    deletion_protection: bool
    labels: Mapping[str, str]
    ready: Sequence[pulumi.Resource]


class GatewayVm(pulumi.ComponentResource):
    """The machine, its address and its settings disk. Its name is also its network tag."""

    host: pulumi.Output[str]
    instance_name: pulumi.Output[str]

    def __init__(self, name: str, args: GatewayVmArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("ibkr:gateway:GatewayVm", name, None, opts)
        child = child_options(self, opts)

        for role in ("logging.logWriter", "monitoring.metricWriter"):
            gcp.projects.IAMMember(
                f"{name}-{role.split('.')[0]}",
                project=args.project,
                role=f"roles/{role}",
                member=args.service_account.member,
                opts=child,
            )
        reads = [
            _may_read(f"{name}-software-{number}", args, source, child)
            for number, source in enumerate(args.software)
            if source.startswith("gs://")
        ]
        address = gcp.compute.Address(
            f"{name}-address",
            name=name,
            region=args.region,
            address_type="INTERNAL",
            subnetwork=args.subnet_id,
            address=str(args.address) if args.address else None,
            opts=child,
        )
        settings_disk = gcp.compute.Disk(
            f"{name}-settings",
            name=f"{name}-settings",
            zone=args.zone,
            size=args.settings_disk_gb,
            type="pd-balanced",
            labels=args.labels,
            opts=child.merge(pulumi.ResourceOptions(protect=args.protect_settings)),
        )
        instance = gcp.compute.Instance(
            f"{name}-instance",
            instance_inputs(name, args, address, settings_disk),
            opts=pulumi.ResourceOptions(
                parent=self,
                depends_on=[*args.ready, *reads],
                # Changed metadata updates in place, and cloud-init doesn't run again.
                replace_on_changes=['metadata["user-data"]'],
                # The name is fixed, the settings disk is attached read-write, and IBKR allows one session.
                delete_before_replace=True,
            ),
        )

        self.host = address.address
        self.instance_name = instance.name
        self.register_outputs({"host": self.host})


def _may_read(
    name: str, args: GatewayVmArgs, source: str, opts: pulumi.ResourceOptions
) -> gcp.projects.IAMMember:
    """The machine's right to read one object, granted on the project, where who deploys may grant."""
    bucket, _, path = source.removeprefix("gs://").partition("/")
    return gcp.projects.IAMMember(
        name,
        project=args.project,
        role="roles/storage.objectViewer",
        member=args.service_account.member,
        condition=gcp.projects.IAMMemberConditionArgs(
            title=name, expression=f'resource.name == "projects/_/buckets/{bucket}/objects/{path}"'
        ),
        opts=opts,
    )


def instance_inputs(
    name: str, args: GatewayVmArgs, address: gcp.compute.Address, settings_disk: gcp.compute.Disk
) -> gcp.compute.InstanceArgs:
    """What the machine is made of."""
    values = {**args.user_data_values, "settings_device": settings_device(name)}
    user_data = pulumi.Output.all(*(gateway.credentials_version for gateway in args.gateways)).apply(
        lambda versions: render(
            "ib-gateway.yaml",
            {
                **values,
                "gateways": [
                    {**gateway.values, "credentials_version": version}
                    for gateway, version in zip(args.gateways, versions, strict=True)
                ],
            },
        )
    )
    return gcp.compute.InstanceArgs(
        name=name,
        zone=args.zone,
        machine_type=args.machine_type,
        tags=[name],
        labels=args.labels,
        boot_disk=gcp.compute.InstanceBootDiskArgs(
            initialize_params=gcp.compute.InstanceBootDiskInitializeParamsArgs(
                image=args.image, size=args.boot_disk_gb, type="pd-balanced"
            ),
        ),
        attached_disks=[
            gcp.compute.InstanceAttachedDiskArgs(
                source=settings_disk.id, device_name=settings_device(name), mode="READ_WRITE"
            )
        ],
        # No access_configs: no public address.
        network_interfaces=[
            gcp.compute.InstanceNetworkInterfaceArgs(subnetwork=args.subnet_id, network_ip=address.address)
        ],
        # cloud-platform is the scope that Secret Manager wants; what the VM may do is up to IAM alone.
        service_account=gcp.compute.InstanceServiceAccountArgs(
            email=args.service_account.email, scopes=["cloud-platform"]
        ),
        shielded_instance_config=gcp.compute.InstanceShieldedInstanceConfigArgs(
            enable_secure_boot=True, enable_vtpm=True, enable_integrity_monitoring=True
        ),
        metadata={
            "enable-oslogin": "TRUE",
            "block-project-ssh-keys": "TRUE",
            "user-data": user_data,
        },
        allow_stopping_for_update=True,  # a new machine type is a stop and a start
        deletion_protection=args.deletion_protection,
    )


def settings_device(name: str) -> str:
    """The settings disk's device_name: it appears as /dev/disk/by-id/google-<it>."""
    return f"{name}-settings"
