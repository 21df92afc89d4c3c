"""Rules on secrets: none in plain text where whoever may look at a resource can read it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from policy.model import Resource, Secret, Stack, plain, texts

# Variables that hold secrets by their names, unless what they hold is a reference (a file's path, a key's
# name at KMS, a public address).
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|PRIVATE_KEY|API_KEY|ACCESS_KEY|CREDENTIAL|^DATABASE_URL$|^ALERT_URLS$"
)
_REFERENCE_NAME = re.compile(r"_(FILE|PATH|NAME|ID|URL|ISSUER|AUDIENCE|ENABLED)$")
_SECRET_HEADER = re.compile(r"authorization|cookie|token|key|secret", re.IGNORECASE)
_SECRET_TEXT = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----"  # PEM
    r"|\bdo[opr]_v1_[0-9a-f]{64}\b"  # DigitalOcean
    r"|\b[a-z][a-z0-9+.-]*://[^/\s:@]+:[^/\s:@]+@"  # a URL with a password in it
    r"|\beyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\."  # a JWT
)
# What in the configuration is a secret: `stacks.sections` has the same fields as SecretStr.
_SECRET_KEYS = frozenset(
    {
        "password",
        "username",
        "apiKey",
        "secretKey",
        "databasePassword",
        "digitaloceanToken",
        "alertUrls",
        "token",
    }
)
# Shorter ones would be found in places that have nothing to do with them.
_SHORTEST = 6


def plaintext_secret(resource: Resource, stack: Stack) -> Iterator[str]:
    """Environment variables name a secret's version; metadata and user data hold none."""
    if resource.is_a("cloudrunv2/service:Service", "cloudrunv2/job:Job"):
        for variable in _variables(resource.known("template")):
            yield from _variable(variable, stack)
    if resource.is_a("compute/instance:Instance"):
        for key in ("metadata", "metadataStartupScript"):
            yield from _exposed(key, resource.inputs.get(key), stack, "whoever may look at the instance")
    if resource.is_a("index/droplet:Droplet"):
        # A declared droplet's login comes in its user data, knowingly (ibkr:ibeam.holdCredentials): there it
        # must at least be a secret to Pulumi, or the state and every preview would show it.
        for path, text, hidden in texts(resource.inputs.get("userData"), "userData"):
            if not hidden and (found := _found(text, stack)):
                yield (
                    f"has {found} in {path} in plain text: state and previews show it. Wrap the value in "
                    "pulumi.Output.secret()."
                )
    if resource.is_a("monitoring/uptimeCheckConfig:UptimeCheckConfig"):
        yield from _uptime_check(resource)
    if resource.is_a("local:Command", "remote:Command"):
        yield from _command(resource, stack)


def _uptime_check(resource: Resource) -> Iterator[str]:
    """Whoever may look at the check reads the login and the headers that it sends."""
    http = resource.inputs.get("httpCheck")
    http = http if isinstance(http, Mapping) else {}
    headers = http.get("headers")
    named = [name for name in headers if _SECRET_HEADER.search(name)] if isinstance(headers, Mapping) else []
    for what in (["authInfo"] if http.get("authInfo") else []) + sorted(named):
        yield (
            f"sends {what}, and whoever may look at the check reads it. Ask a path that needs no login, as "
            "/health."
        )


def _variables(template: Any) -> Iterator[Mapping[str, Any]]:
    template = template if isinstance(template, Mapping) else {}
    inner = template.get("template")  # a job's is one deeper
    for container in (inner if isinstance(inner, Mapping) else template).get("containers") or []:
        yield from (variable for variable in container.get("envs") or [] if isinstance(variable, Mapping))


def _variable(variable: Mapping[str, Any], stack: Stack) -> Iterator[str]:
    name, value = str(variable.get("name")), variable.get("value")
    if not isinstance(value, str) or not value:
        return
    named = bool(_SECRET_NAME.search(name)) and not (
        _REFERENCE_NAME.search(name) and name not in ("DATABASE_URL",)
    )
    if named or _found(value, stack):
        yield (
            f"has the variable {name} in plain text, and whoever may look at the service reads it. Put the "
            "value into Secret Manager (components/secret.py) and name its version in value_source."
        )


def _command(resource: Resource, stack: Stack) -> Iterator[str]:
    for key in ("create", "update", "delete", "environment", "triggers"):
        for path, text, hidden in texts(resource.inputs.get(key), key):
            if not hidden and (found := _found(text, stack)):
                yield (
                    f"has {found} in {path} in plain text: state and previews show it. Take it from the "
                    "process's environment, as components/fleet_sweep.py does."
                )


def _exposed(key: str, value: Any, stack: Stack, who: str) -> Iterator[str]:
    """Whether marked as a secret or not: the cloud shows it to `who`."""
    marked = isinstance(value, Mapping) and any(isinstance(item, Secret) for item in value.values())
    for path, text, _ in texts(value, key):
        if found := _found(text, stack):
            yield (
                f"has {found} in {path}, and {who} reads it. Put the value into Secret Manager and have the "
                "machine read it at its start, as cloud-init/ib-gateway.yaml does."
            )
            return
    if marked or isinstance(value, Secret):
        yield (
            f"has a secret in {key}, and {who} reads it. Put the value into Secret Manager, and its "
            "version's name here."
        )


def _found(text: str, stack: Stack) -> str:
    """What in a text is a secret, in words that don't give it away; "" if nothing is."""
    if _SECRET_TEXT.search(text):
        return "what looks like a key, a token or a password"
    for key, value in secrets_of(stack.config):
        # As a word of its own: a user may well be called as a part of something else is.
        if value in text and re.search(rf"(?<!\w){re.escape(value)}(?!\w)", text):
            return f"the value of {key}"
    return ""


def secrets_of(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every secret in a stack's configuration, by its path. User names count: they are half a login."""
    for path, text, _ in texts(plain(dict(config))):
        if path.rpartition(".")[2].rpartition(":")[2] in _SECRET_KEYS and len(text) >= _SHORTEST:
            yield path, text
