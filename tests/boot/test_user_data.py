"""Every user data that we render, in cloud-init's own judgement, and every script in shellcheck's."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from broker.fleet.cloud_init import DROPLET_USER_DATA_LIMIT, GCE_METADATA_LIMIT, template_directory
from tests.boot.image import Image
from tests.fleet.test_shipped_templates import VARIANTS

pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("user_data", VARIANTS)
def test_cloud_init_finds_its_schema_kept_and_nothing_deprecated(boot_image: Image, user_data: str) -> None:
    # A private mount keeps the file, which may hold a login, off the image.
    check = 'chroot "$0" cloud-init schema --config-file /mnt/user-data'
    script = f'mount -t tmpfs tmpfs "$0/mnt" && cat >"$0/mnt/user-data" && {check}'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, str(boot_image.root)],
        input=user_data, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Valid" in done.stdout
    assert "deprecat" not in (done.stdout + done.stderr).lower()


@pytest.mark.parametrize("user_data", VARIANTS)
def test_it_is_small_enough_for_its_cloud(user_data: str) -> None:
    is_droplet = "/etc/ibkr-gateway/" not in user_data
    assert len(user_data.encode()) < (DROPLET_USER_DATA_LIMIT if is_droplet else GCE_METADATA_LIMIT)


def shell_scripts() -> list[Path]:
    """The scripts that machines run, and those that stand for others in these tests."""
    checkout = template_directory().parent
    places = [template_directory() / "files", Path(__file__).parent / "stand_ins", checkout / ".ci"]
    files = [file for place in places for file in sorted(place.rglob("*")) if file.is_file()]
    return [file for file in files if re.match(rb"#!/bin/(ba)?sh\n", file.read_bytes())]


@pytest.mark.parametrize("script", shell_scripts(), ids=lambda path: path.name)
def test_shellcheck_has_nothing_to_say(script: Path) -> None:
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("user_data", VARIANTS)
def test_no_command_of_cloud_init_goes_through_a_shell(user_data: str) -> None:
    for command in yaml.safe_load(user_data).get("runcmd", []):
        assert isinstance(command, list), "a list reaches no shell, so there is nothing to quote"
