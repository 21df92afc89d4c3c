"""Secret volumes of a Cloud Run container: versions of a secret as files below a mount path.

cloud.google.com/run/docs/configuring/services/secrets. A container's root folder is the laptop's here, so a
volume lies in the instance's own memory-backed folder, and variables that name a path below its mount path
lead there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from localcloud.cloud import CloudError
from localcloud.secrets import secret_of_revision
from localcloud.topology import short

if TYPE_CHECKING:
    from localcloud.cloud import Cloud

_DEFAULT_MODE = 0o444
_RESERVED = ("/dev", "/proc", "/sys")


def volumes_of(template: Mapping[str, Any], container: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A container's volumes as plain JSON: where each is mounted, of which secret, with which files.

    Raises `CloudError` 400 for a mount without its volume or at a place that Cloud Run keeps for itself,
    and for a kind of volume that the local cloud doesn't have.
    """
    declared = {volume["name"]: volume for volume in template.get("volumes") or ()}
    for name, volume in declared.items():
        if not volume.get("secret"):
            raise _bad(f"template.volumes: the local cloud mounts secrets, and '{name}' is something else.")
    found = []
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        name, path = mount["name"], PurePosixPath(mount["mountPath"])
        where = f"template.containers[0].volume_mounts[{index}]"
        if name not in declared:
            raise _bad(f"{where}.name: there is no volume '{name}'.")
        if not path.is_absolute() or ".." in path.parts or path == PurePosixPath("/"):
            raise _bad(f"{where}.mount_path: '{path}' must be an absolute path below the root.")
        if any(path.is_relative_to(reserved) for reserved in _RESERVED):
            raise _bad(f"{where}.mount_path: '{path}' can't be mounted: {', '.join(_RESERVED)} are reserved.")
        secret = declared[name]["secret"]
        mode = secret.get("defaultMode") or _DEFAULT_MODE
        items = secret.get("items") or [{"path": short(secret["secret"])}]
        files = [
            {
                "path": item["path"],
                "version": str(item.get("version") or "latest"),
                "mode": item.get("mode") or mode,
            }
            for item in items
        ]
        found.append({"mount": str(path), "secret": short(secret["secret"]), "files": files})
    return found


def mounted(cloud: Cloud, volumes: list[dict[str, Any]], email: str, folder: Path) -> dict[str, Path]:
    """Write the volumes' files below a folder, read as the service account; mount path to place.

    Raises `CloudError` 400 in Cloud Run's words when a secret can't be read.
    """
    places = {}
    for number, volume in enumerate(volumes):
        place = folder / str(number)
        for file in volume["files"]:
            path = f"spec.template.spec.volumes[{number}].secret"
            content = secret_of_revision(cloud, email, volume["secret"], file["version"], path)
            target = place / file["path"]
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            target.unlink(missing_ok=True)  # an instance that starts again finds it read-only
            target.write_bytes(content)
            target.chmod(file["mode"])
        places[volume["mount"]] = place
    return places


def led_into(value: str, places: Mapping[str, Path]) -> str:
    """A variable's value; where it is a path below a mount path, the path that it has here."""
    for mount, place in places.items():
        if value == mount or value.startswith(f"{mount}/"):
            return str(place) + value[len(mount) :]
    return value


def _bad(message: str) -> CloudError:
    return CloudError(400, message, "INVALID_ARGUMENT")
