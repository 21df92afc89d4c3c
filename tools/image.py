"""`make image STACK=staging`: builds the service's image, pushes it, and names it by its digest.

The name is the last line of the output, and the only one that isn't Docker's: `ibkr:api.image` takes it, or
`make up IMAGE=`.
"""

import argparse
import json
import subprocess
import sys

from tools.environments import CHECKOUT
from tools.local_cloud import CommandFailed
from tools.real_stack import RealStack


def build(registry: str, commit: str) -> str:
    """Builds and pushes the checkout; returns the image's name with its digest. Raises CommandFailed."""
    name = f"{registry}/api"
    tag = f"{name}:{commit}"
    docker("build", "--pull", "--tag", tag, ".")
    docker("push", "--quiet", tag)
    listed = docker("image", "inspect", "--format", "{{json .RepoDigests}}", tag)
    digests = [entry for entry in json.loads(listed) if entry.startswith(f"{name}@sha256:")]
    if len(digests) != 1:
        raise CommandFailed(f"Docker doesn't say the digest of {tag}: {listed.strip()}")
    return str(digests[0])


def docker(*arguments: str) -> str:
    """Docker's answer; what it says on the way is shown. Raises CommandFailed."""
    try:
        ran = subprocess.run(["docker", *arguments], cwd=CHECKOUT, stdout=subprocess.PIPE, text=True)
    except FileNotFoundError:
        raise CommandFailed("This needs Docker: https://docs.docker.com/engine/install/") from None
    if ran.returncode != 0:
        raise CommandFailed(f"`docker {arguments[0]}` failed: see above.")
    return ran.stdout


def registry_of(stack: str) -> str:
    """The registry that a stack's foundation made. Raises CommandFailed."""
    foundation = stack if stack.startswith("foundation-") else f"foundation-{stack}"
    registry = RealStack(foundation).outputs().get("registry_url")
    if not registry:
        raise CommandFailed(f"There is no registry yet: `make up STACK={foundation}` makes it.")
    return str(registry)


def commit_of_checkout() -> str:
    """The commit that is built. Raises CommandFailed where it wouldn't say what is in the image."""
    changed = subprocess.run(
        ["git", "status", "--porcelain", "--", "broker", "cloud-init", "Dockerfile", "requirements"],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if changed:
        raise CommandFailed(f"Commit first: an image is named after its commit.\n{changed.rstrip()}")
    head = ["git", "rev-parse", "--short=12", "HEAD"]
    return subprocess.run(head, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tools.image", description=__doc__)
    parser.add_argument("--stack", required=True, help="an environment, or its foundation")
    parser.add_argument("--registry", default="", help="the registry, if the foundation isn't to be asked")
    options = parser.parse_args()
    try:
        commit = commit_of_checkout()
        registry = options.registry or registry_of(options.stack)
        print(build(registry, commit))
    except CommandFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
