"""Stacks in real clouds: the person's own Pulumi login and credentials, and nothing of ours but PATH.

`up` and `destroy` are Pulumi's own, with its preview and its question.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tools import failures, pulumi_cli, pulumi_process
from tools.environments import CHECKOUT, MAIN
from tools.local_cloud import CommandFailed
from tools.local_stack import POLICY

GATEWAY = "ibkr-gateway"
# A tag may be another image tomorrow.
PINNED = re.compile(r"[a-z0-9][a-z0-9./_:-]*@sha256:[0-9a-f]{64}")


class RealStack:
    """One stack that is not `local`. Methods raise CommandFailed with what to do.

    `image`, where it isn't empty, takes the place of `ibkr:api.image` in the stack's file.
    """

    def __init__(
        self, name: str, checkout: Path = CHECKOUT, unattended: bool = False, image: str = ""
    ) -> None:
        self.name = name
        self._image = image
        if image and not PINNED.fullmatch(image):
            raise CommandFailed(f"IMAGE={image} isn't pinned: write its name, @sha256: and the 64 digits.")
        self._checkout = checkout
        self._unattended = unattended
        if not (checkout / f"Pulumi.{name}.yaml").exists():
            known = sorted(file.name[7:-5] for file in checkout.glob("Pulumi.*.yaml"))
            raise CommandFailed(
                f"There is no stack {name!r}: no Pulumi.{name}.yaml. There are {', '.join(known)}."
            )

    def up(self) -> None:
        """Preview, ask, make; nothing that a policy forbids."""
        self._pulumi("up", *self._policy(), *self._image_options())

    def preview(self) -> None:
        """Show what `up` would do, and whether a policy forbids it."""
        self._pulumi("preview", "--diff", *self._policy(), *self._image_options())

    def drift(self) -> None:
        """Fail if anything is no longer as the last `up` left it. Changes and locks nothing."""
        self._pulumi("refresh", "--preview-only", "--expect-no-changes", "--diff")

    def refresh(self) -> None:
        """Compare the state with what there is, ask, take that over."""
        self._pulumi("refresh")

    def destroy(self) -> None:
        """Preview, ask, take everything away."""
        self._pulumi("destroy")

    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        self._check_login()
        argv = [str(self._program()), "stack", "output", "--json", "--stack", self.name]
        told: dict[str, Any] = json.loads(pulumi_process.answer(argv, self._environment(), self._checkout))
        return told

    def resources(self) -> int | None:
        """How many resources the stack holds, where the backend tells."""
        argv = [str(self._program()), "stack", "ls", "--json", "--project", "ibkr"]
        told = json.loads(pulumi_process.answer(argv, self._environment(), self._checkout))
        counts = {stack["name"].rpartition("/")[2]: stack.get("resourceCount") for stack in told}
        return counts.get(self.name)

    def tunnel(self, name: str, port: int, listen: str) -> None:
        """Lead a local port to a machine's, through the Identity-Aware Proxy, until Ctrl-C."""
        address = f"--local-host-port={listen}"
        self.gcloud("compute", "start-iap-tunnel", name or GATEWAY, str(port), address, "--zone", self.zone())

    def configuration(self) -> dict[str, Any]:
        """The stack's configuration as it lies in its file, secrets encrypted."""
        import yaml

        content = yaml.safe_load((self._checkout / f"Pulumi.{self.name}.yaml").read_text()) or {}
        return dict(content.get("config") or {})

    def configure(self, path: str, value: str | bool) -> None:
        """Set a value in the stack's file."""
        text = str(value).lower() if isinstance(value, bool) else value
        argv = [str(self._program()), "config", "set", "--stack", self.name, "--path", path, text]
        pulumi_process.answer(argv, self._environment(), self._checkout)

    def project(self) -> str:
        """The Google project of this stack's configuration."""
        return self._configured("gcp:project", None)

    def region(self) -> str:
        """The Google region of this stack's configuration."""
        return self._configured("gcp:region", None) or "us-west1"

    def zone(self) -> str:
        """The Google zone of this stack's gateway VM."""
        return self._configured("ibkr:gateway", "zone") or "us-west1-b"

    def _configured(self, key: str, part: str | None) -> str:
        value = self.configuration().get(key)
        if part is not None:
            value = (value or {}).get(part)
        return str(value or "")

    def gcloud(self, *arguments: str) -> None:
        """Run gcloud in the stack's project; the person sees what it says. Raises CommandFailed."""
        gcloud = shutil.which("gcloud")
        if gcloud is None:
            raise CommandFailed(
                "This needs gcloud, which isn't on PATH: https://cloud.google.com/sdk/docs/install, then "
                "`gcloud auth login`."
            )
        argv = [gcloud, *arguments, "--project", self.project()]
        if subprocess.run(argv).returncode != 0:
            raise CommandFailed(f"gcloud failed: {' '.join(argv)}")

    def _policy(self) -> list[str]:
        return ["--policy-pack", str(self._checkout / POLICY)]

    def _image_options(self) -> list[str]:
        return ["--config-path", "--config", f"ibkr:api.image={self._image}"] if self._image else []

    def _pulumi(self, command: str, *options: str) -> None:
        self._check_login()
        argv = [str(self._program()), command, "--stack", self.name, *options]
        asks = command != "preview" and "--preview-only" not in options
        if asks and self._unattended:
            argv.append("--yes")
        elif asks and not sys.stdin.isatty():
            raise CommandFailed(
                f"`make {command}` asks before it changes {self.name}, and there is no terminal to answer. "
                f"Look at `make preview STACK={self.name}`, then add YES=1."
            )
        if pulumi_process.watched(argv, self._environment(), self._checkout) != 0:
            raise CommandFailed(f"`{command}` of the stack {self.name} failed; what Pulumi says is above.")

    def _check_login(self) -> None:
        """Whether Pulumi is told where the state is and how to read it, as far as that can be seen."""
        home = Path(os.environ.get("PULUMI_HOME") or Path.home() / ".pulumi")
        told = any(os.environ.get(name) for name in ("PULUMI_BACKEND_URL", "PULUMI_ACCESS_TOKEN"))
        if not told and not (home / "credentials.json").exists():
            raise CommandFailed(failures.NO_STATE)
        names = ("PULUMI_CONFIG_PASSPHRASE", "PULUMI_CONFIG_PASSPHRASE_FILE")
        salted = "encryptionsalt:" in (self._checkout / f"Pulumi.{self.name}.yaml").read_text()
        # On a terminal Pulumi asks for it. An empty one is one, too.
        if salted and not sys.stdin.isatty() and not any(name in os.environ for name in names):
            raise CommandFailed(failures.NO_SECRETS)

    def _program(self) -> Path:
        found = pulumi_cli.locate()
        if found is None:
            raise CommandFailed("There is no Pulumi CLI. `make preview` fetches or builds it.")
        return found / "pulumi"

    def _environment(self) -> dict[str, str]:
        return os.environ | pulumi_process.search_path(self._program().parent, MAIN.python)
