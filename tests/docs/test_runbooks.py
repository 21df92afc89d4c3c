"""Every command that the runbooks and the README have a person type exists, with its options.

`make` and `pulumi` are asked themselves. gcloud isn't here: GCLOUD has what its reference lists
(cloud.google.com/sdk/gcloud/reference).
"""

from __future__ import annotations

import re
import shlex
import subprocess
from functools import cache

import pytest

from broker.fleet.__main__ import main as fleet
from broker.service.app import api
from tools import pulumi_cli
from tools.environments import CHECKOUT

FILES = [
    name
    for name in ("docs/runbooks.md", "README.md", "docs/production.md", "docs/github.md", "docs/migration.md")
    if (CHECKOUT / name).exists()
]
GCLOUD = {
    "artifacts docker images list": {"--include-tags"},
    "auth application-default login": set(),
    "auth configure-docker": set(),
    "auth login": set(),
    "billing accounts list": set(),
    "compute instances stop": {"--zone", "--project"},
    "compute ssh": {"--tunnel-through-iap", "--command", "--zone"},
    "config set": set(),
    "projects delete": set(),
    "projects describe": {"--format"},
    "run services describe": {"--region"},
    "scheduler jobs list": {"--location"},
    "services enable": set(),
    "sql backups list": {"--instance", "--project"},
    "sql backups restore": {"--backup-instance", "--backup-project", "--restore-instance", "--project"},
    "sql export sql": set(),
    "sql import sql": set(),
    "sql instances clone": {"--point-in-time"},
    "sql instances list": set(),
    "storage buckets create": {"--location", "--uniform-bucket-level-access"},
    "storage buckets update": {"--versioning"},
}
FENCED = re.compile(r"^ *```sh\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`([^`]+)`", re.DOTALL)
STARTS = re.compile(
    r"(?:^|[;&|(\"]|\$\()\s*(?:TOKEN=\S+ )?((?:make|gcloud|pulumi|python -m) [^;&|)\"#]+)", re.MULTILINE
)


@cache
def commands() -> tuple[tuple[str, str], ...]:
    """Each command line, and the file that it stands in."""
    found = []
    for name in FILES:
        text = (CHECKOUT / name).read_text()
        lines = [line for block in FENCED.findall(text) for line in block.replace("\\\n", " ").splitlines()]
        spans = [" ".join(span.split()) for span in INLINE.findall(FENCED.sub("", text))]
        found += [
            (name, " ".join(command.split())) for part in lines + spans for command in STARTS.findall(part)
        ]
    return tuple(dict.fromkeys(found))


def of(program: str) -> list[tuple[str, str]]:
    found = [(file, line) for file, line in commands() if line.startswith(f"{program} ")]
    assert found, f"no command of {program} was found: the pattern looks at nothing"
    return found


def words(line: str) -> list[str]:
    try:
        return shlex.split(line)
    except ValueError:
        return line.replace("'", "").split()


def test_every_make_target_and_variable_exists() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    targets = set(re.search(r"^\.PHONY: (.+)$", makefile, re.MULTILINE)[1].split())  # type: ignore[index]
    variables = set(re.findall(r"^(\w+) \?=", makefile, re.MULTILINE)) | set(
        re.findall(r"\$\((\w+)\)", makefile)
    )
    for file, line in of("make"):
        _, *rest = words(line)
        named = [word for word in rest if not word.startswith("-") and "=" not in word]
        assert named, (file, line)
        assert named[0] in targets, f"{file}: `{line}`"
        for word in rest:
            if re.match(r"[A-Z_]+=", word):
                assert word.partition("=")[0] in variables, f"{file}: `{line}`"


@cache
def pulumi_help(*path: str) -> str:
    program = pulumi_cli.locate()
    assert program is not None, "make setup builds or fetches it"
    asked = [str(program / "pulumi"), *path, "--help"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def test_every_pulumi_command_and_option_exists() -> None:
    for file, line in of("pulumi"):
        _, *rest = words(line)
        path: list[str] = []
        # Of a command that it doesn't know it shows the help of the one above.
        while rest and rest[0].isalpha() and pulumi_help(*path, rest[0]) != pulumi_help(*path):
            path.append(rest.pop(0))
        assert path, f"{file}: `{line}`"
        for word in rest:
            if word.startswith("--"):
                option = word.partition("=")[0]
                assert re.search(rf"{option}\b", pulumi_help(*path)), f"{file}: `{line}`: {option}"


def test_every_gcloud_command_is_one_that_the_reference_lists() -> None:
    for file, line in of("gcloud"):
        rest = line.removeprefix("gcloud ")
        known = [path for path in GCLOUD if f"{rest} ".startswith(f"{path} ")]
        assert known, f"{file}: `{line}`"
        options = {word.partition("=")[0] for word in re.findall(r"--[a-z-]+", rest)}
        if "--command" in options:
            options &= {"--command", "--tunnel-through-iap", "--zone"}
        assert options <= GCLOUD[max(known, key=len)], f"{file}: `{line}`"


@pytest.mark.parametrize("command", ["quarantine", "condemn", "new-key", "rewrap"])
def test_every_command_of_the_fleet_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        fleet([command, "--help"])
    assert ended.value.code == 0
    used = {words(line)[3] for _, line in of("python -m broker.fleet") if len(words(line)) > 3}
    assert used <= {"quarantine", "condemn", "new-key", "rewrap"}


def test_every_route_of_the_runbooks_exists() -> None:
    routes = {re.sub(r"\{\w+\}", "{}", path) for path in api().openapi()["paths"]}
    text = (CHECKOUT / "docs/runbooks.md").read_text()
    named = re.findall(r"`(?:GET|POST|PUT|DELETE) ([^`?\s]+)", text)
    assert named
    for path in named:
        shown = re.sub(r"\{\w+\}", "{}", path)
        ending = shown.removeprefix("...")
        filled = {re.sub(r"/connections/\{\}", "/connections/default", route) for route in routes} | routes
        assert any(route == shown or ("..." in path and route.endswith(ending)) for route in filled), path
