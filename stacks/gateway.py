"""The gateway part of an environment: credentials, firewall, machine, and the people who may reach it.

One gateway, or paper and live side by side on the one machine: two logins, two ports, two of everything that
runs, so that what befalls the one doesn't touch the other.
"""

from __future__ import annotations

import json

import pulumi
import pulumi_gcp as gcp

from components.egress import Egress
from components.gateway_firewall import GatewayFirewall, GatewayFirewallArgs
from components.gateway_vm import GatewayArgs, GatewayVm, GatewayVmArgs
from components.network import Network
from components.operator_access import OperatorAccess, OperatorAccessArgs
from components.secret import Secret, SecretArgs
from stacks.database import labels
from stacks.foundation import Foundation
from stacks.sections import API_PORTS
from stacks.settings import Settings
from stacks.values import TradingMode

# The gateway itself listens on loopback, at this much above the port that faces the VPC: IBKR's software
# accepts local clients only.
LOCAL_PORT_OFFSET = 10_000
# Where IBC takes commands, on loopback, and which display a gateway has.
COMMAND_PORTS: dict[TradingMode, int] = {"live": 7461, "paper": 7462}
DISPLAYS: dict[TradingMode, str] = {"live": ":1", "paper": ":2"}


def declare_gateway(
    settings: Settings, foundation: Foundation, network: Network, egress: Egress
) -> pulumi.Output[str]:
    """Declares the gateway VM and what belongs to it; returns its internal address."""
    gateway = settings.gateway
    account = gcp.serviceaccount.Account(
        f"{gateway.name}-account",
        account_id=gateway.name,
        display_name="ibkr: the IB Gateway VM",
        opts=foundation.after("iam"),
    )
    secrets = {mode: _credentials(settings, foundation, account, mode) for mode in settings.gateway_logins}
    GatewayFirewall(
        gateway.name,
        GatewayFirewallArgs(
            network_id=foundation.network_id,
            tag=gateway.name,
            api_ports=[API_PORTS[mode] for mode in settings.gateway_logins],
            connector_range=settings.network.connector_range,
            allow_connector=settings.network.allow_connector,
            deny_connector=settings.network.deny_connector,
        ),
    )
    machine = GatewayVm(
        gateway.name,
        GatewayVmArgs(
            service_account=account,
            gateways=[
                GatewayArgs(secret.version_name, _gateway_values(settings, mode))
                for mode, secret in secrets.items()
            ],
            user_data_values=_user_data_values(settings),
            software=[gateway.software.gateway_source, gateway.software.ibc_source],
            project=settings.project,
            region=settings.region,
            zone=gateway.zone,
            subnet_id=network.subnet_id,
            machine_type=gateway.machine_type,
            image=gateway.image,
            boot_disk_gb=gateway.boot_disk_gb,
            settings_disk_gb=gateway.settings_disk_gb,
            address=gateway.address,
            protect_settings=gateway.protect_settings,
            deletion_protection=gateway.deletion_protection,
            labels=labels(settings),
            ready=[*(each for secret in secrets.values() for each in secret.reference.ready), egress.nat],
        ),
        foundation.after("compute"),
    )
    for number, member in enumerate(settings.operators):
        OperatorAccess(
            f"{gateway.name}-operator-{number}",
            OperatorAccessArgs(member, machine.instance_name, gateway.zone, account.name),
            foundation.after("compute", "iam", "iap"),
        )
    return machine.host


def _credentials(
    settings: Settings, foundation: Foundation, account: gcp.serviceaccount.Account, mode: TradingMode
) -> Secret:
    """A gateway's IBKR login as one JSON document; the VM, and nobody else, may read it."""
    _, login = settings.gateway_logins[mode]
    assert login is not None  # stacks.relations: an enabled gateway has credentials
    document = {
        "username": login.username.get_secret_value(),
        "password": login.password.get_secret_value(),
    }
    return Secret(
        f"{settings.gateway.name}-credentials" + (f"-{mode}" if settings.runs_both_gateways else ""),
        SecretArgs(
            value=pulumi.Output.secret(json.dumps(document)),
            readers={"gateway": account.member} if settings.gateway.may_read_credentials else {},
            labels=labels(settings),
        ),
        foundation.after("secretmanager"),
    )


def _user_data_values(settings: Settings) -> dict[str, str | list[dict[str, str]]]:
    """The values of cloud-init/ib-gateway.yaml that are known before anything is made."""
    gateway, software = settings.gateway, settings.gateway.software
    return {
        "gateway_version": software.gateway_version,
        "gateway_sha256": str(software.gateway_sha256),
        "gateway_source": software.gateway_source,
        "ibc_version": software.ibc_version,
        "ibc_sha256": str(software.ibc_sha256),
        "ibc_source": software.ibc_source,
        "read_only_api": "yes" if gateway.read_only_api else "no",
        "auto_restart_time": gateway.auto_restart_time,
        "cold_restart_time": gateway.cold_restart_time,
        "time_zone": gateway.time_zone,
        "ops_agent": [{"keys": " ".join(gateway.ops_agent.keys)}] if gateway.ops_agent.enabled else [],
    }


def _gateway_values(settings: Settings, mode: TradingMode) -> dict[str, str]:
    """The values of one gateway."""
    port = API_PORTS[mode]
    has_second_factor = mode == "live" or not settings.runs_both_gateways
    return {
        "mode": mode,
        "api_port": str(port),
        "local_api_port": str(port + LOCAL_PORT_OFFSET),
        "command_port": str(COMMAND_PORTS[mode]),
        "display": DISPLAYS[mode],
        "second_factor_device": settings.gateway.second_factor_device if has_second_factor else "",
    }
