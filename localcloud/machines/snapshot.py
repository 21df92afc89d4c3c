"""The private IBeam snapshot of the integration document, as far as a droplet's user data can see it."""

from __future__ import annotations

IBEAM_SNAPSHOT = {
    "/root/ibeam_files/env.list": (
        "# IBeam's settings, read by docker with --env-file\n"
        "IBEAM_ACCOUNT=your_account123\n"
        "IBEAM_PASSWORD=your_password123\n"
        "IBEAM_REQUEST_RETRIES=10\n"
    ),
    "/var/lib/docker/images": "voyz/ibeam\n",
    "/root/starter.sh": (
        "#!/bin/bash\n"
        "docker run --rm --name ibeam --env-file /root/ibeam_files/env.list"
        " -v /root/ibeam_files/inputs:/srv/inputs -p 5000:5000 -p 127.0.0.1:5001:5001 voyz/ibeam\n"
    ),
}
"""Files of the snapshot by their path."""


def is_snapshot(image: str) -> bool:
    """Whether an image is a snapshot (a number) and not a stock image (a slug)."""
    return image.isascii() and image.isdigit()
