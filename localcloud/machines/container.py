"""A Cloud Run container as it is declared, made ready to run: program, environment, secrets."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localcloud import secrets
from localcloud.cloud import CloudError
from localcloud.machines.dockerfile import ImageConfig, read_dockerfile
from localcloud.machines.volumes import led_into, mounted, volumes_of
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

DEFAULT_PORT = 8080
# Of services and jobs that declare none: the project's Compute Engine account, as in life.
DEFAULT_ACCOUNT = f"{secrets.PROJECT_NUMBER}-compute@developer.gserviceaccount.com"


@dataclass(frozen=True)
class Program:
    """What to start, where, and with which part of the environment that holds no secret."""

    argv: list[str]
    cwd: Path
    env: dict[str, str]


def container_of(template: Mapping[str, Any]) -> dict[str, Any]:
    """The one container of a template, as plain JSON for a machine's specification.

    Raises `CloudError` 400 for what the local cloud doesn't run: sidecars, gRPC probes, volumes other than
    secrets.
    """
    containers = template.get("containers") or []
    if len(containers) != 1:
        raise CloudError(400, "The local cloud runs exactly one container per instance.", "invalid")
    container = containers[0]
    for probe in ("startupProbe", "livenessProbe"):
        if (container.get(probe) or {}).get("grpc"):
            raise CloudError(400, f"{probe}.grpc: the local cloud probes by HTTP and TCP.", "invalid")
    ports = container.get("ports") or {}
    port = ports[0] if isinstance(ports, list) and ports else ports
    return {
        "image": container["image"],
        "command": list(container.get("commands") or ()),
        "args": list(container.get("args") or ()),
        "env": list(container.get("envs") or ()),
        "port": int((port or {}).get("containerPort") or DEFAULT_PORT),
        "startup_probe": container.get("startupProbe"),
        "liveness_probe": container.get("livenessProbe"),
        "volumes": volumes_of(template, container),
    }


def program_of(cloud: Cloud, container: Mapping[str, Any], override: Sequence[str] | None = None) -> Program:
    """The program of a container; `override` replaces its arguments (a job's execution may).

    Raises `CloudError` 400 in Cloud Run's words when the image is not there.
    """
    checkout = _checkout(cloud, container["image"])
    try:
        image = read_dockerfile((checkout / "Dockerfile").read_text())
    except (OSError, ValueError):
        raise CloudError(400, f"Image '{container['image']}' not found.", "NOT_FOUND") from None
    argv = _argv(image, container, override)
    if Path(argv[0]).name in ("python", "python3"):
        argv[0] = sys.executable
    env = {
        name: _into_checkout(value, image.workdir, checkout)
        for name, value in image.env.items()
        if name not in ("PATH", "HOME")  # the image's; here they are this interpreter's and the machine's
    }
    return Program(argv, checkout, env)


def environment_of(cloud: Cloud, container: Mapping[str, Any], email: str, folder: Path) -> dict[str, str]:
    """The declared environment with secrets read as the service account, as at an instance's start.

    Secret volumes are written below `folder`. Raises `CloudError` 400 in Cloud Run's words when a secret
    can't be read.
    """
    places = mounted(cloud, container.get("volumes") or [], email, folder)
    found = {}
    for index, variable in enumerate(container["env"]):
        reference = (variable.get("valueSource") or {}).get("secretKeyRef")
        if reference is None:
            found[variable["name"]] = led_into(str(variable.get("value") or ""), places)
            continue
        secret, version = short(reference["secret"]), str(reference.get("version") or "latest")
        path = f"spec.template.spec.containers[0].env[{index}].value_from.secret_key_ref.name"
        found[variable["name"]] = secrets.secret_of_revision(cloud, email, secret, version, path).decode()
    return found


def _checkout(cloud: Cloud, image: str) -> Path:
    images = cloud.store.notes("images") | dict(cloud.settings.images)
    folder = images.get(image) or images.get(image.partition("@")[0])
    if folder is None:
        raise CloudError(400, f"Image '{image}' not found.", "NOT_FOUND")
    return Path(folder)


def _argv(image: ImageConfig, container: Mapping[str, Any], override: Sequence[str] | None) -> list[str]:
    """Kubernetes' rules: a declared command replaces entry point and CMD, declared args replace CMD."""
    command, arguments = list(container["command"]), list(container["args"])
    if override is not None:
        arguments = list(override)
    if command:
        return command + arguments
    given = override is not None or bool(arguments)
    argv = image.entrypoint + (arguments if given else image.command)
    if not argv:
        raise CloudError(400, f"Image '{container['image']}' names no program to run.", "INVALID_ARGUMENT")
    return argv


def _into_checkout(value: str, workdir: str, checkout: Path) -> str:
    """Paths below the image's WORKDIR, where COPY puts the project, lie in the checkout here."""
    if workdir != "/" and (value == workdir or value.startswith(f"{workdir}/")):
        return str(checkout) + value[len(workdir) :]
    return value
