"""Secrets: who may read them, and where they must never be found."""

import subprocess
from pathlib import Path

import yaml

from tests.e2e.conftest import Service, ask, eventually
from tools.local_stack import LocalStack

GRANT = "gcp:secretmanager/secretIamMember:SecretIamMember"


def secret_values(stack: LocalStack) -> list[str]:
    """The plain text of the passwords and tokens in the stack's configuration."""
    shown = stack._ask("config", "--stack", "local", "--show-secrets", "--json")
    values: list[str] = []

    def collect(node: object) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "password" and isinstance(value, str):
                    values.append(value)
                collect(value)
        elif isinstance(node, list):
            for value in node:
                collect(value)

    for key, entry in yaml.safe_load(shown).items():
        value = entry.get("value")
        if entry.get("secret") and isinstance(value, str) and not value.startswith(("{", "[")):
            values.append(value)
        collect(entry.get("objectValue"))
        if key.startswith("digitalocean"):
            values.append(str(value))
    return [value for value in values if len(value) > 5]


def test_no_secret_lies_in_plain_text_in_state_config_logs_or_arguments(
    stack: LocalStack, service: Service
) -> None:
    passwords = secret_values(stack)
    assert len(passwords) >= 4, "the test must know what to look for"
    # What a machine itself holds (its memory's files, its database) is the machine's; in life it is far away.
    own = stack.home / "cloud" / "machines"
    looked_at = 0
    for file in stack.home.rglob("*"):
        if file.is_file() and own not in file.parents and not file.is_socket():
            content = file.read_bytes()
            looked_at += 1
            for password in passwords:
                assert password.encode() not in content, f"{file.relative_to(stack.home)} holds a secret"
    assert looked_at > 5
    arguments = subprocess.run(
        ["ps", "axww", "-o", "args"], capture_output=True, text=True, check=True
    ).stdout
    assert not [password for password in passwords if password in arguments]
    for machine in stack.cloud.machines():
        log = stack.cloud.log(machine["name"])
        assert not [password for password in passwords if password in log], f"{machine['name']}'s log"


def test_without_its_grant_the_gateway_fails_to_log_in_and_says_so(
    stack: LocalStack, service: Service
) -> None:
    ungranted = stack.config
    try:
        ungranted.set("ibkr:gateway.mayReadCredentials", False)
        stack.up()
        ask(stack, "reset_machine", name="gce/ibkr-gateway")
        service.until_disconnected()
        eventually(
            lambda: stack.cloud.log("gce/ibkr-gateway"),
            lambda log: "PERMISSION_DENIED" in log or "Permission" in log,
        )
        assert service.get("account").status_code == 503
    finally:
        ungranted.unset("ibkr:gateway.mayReadCredentials")
        stack.up()
        ask(stack, "reset_machine", name="gce/ibkr-gateway")
    Service(stack).until_connected()


def test_the_tracked_configuration_holds_no_secret_and_is_never_written_to(stack: LocalStack) -> None:
    tracked = Path(__file__).parents[2] / "Pulumi.local.yaml"
    text = tracked.read_text()
    assert "secure:" not in text
    assert "encryptionsalt" not in text
