"""What the pages name is there: commands, flags, paths, links, keys, variables and the API's paths."""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from broker.service.app import api
from tools.reference import settings

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
#: what readers put their own in place of
PLACEHOLDERS = ("YOUR_", "OLD_", "NEW_", "BACKUP_ID")
#: of GNU make itself
MAKES_OWN = {"-s"}
#: programs whose help says which commands and flags they have
PROGRAMS = (
    "broker",
    "broker.service",
    "broker.fleet",
    "localcloud",
    "tools.reference",
    "localcloud.machines.artefacts",
)


def text(page: Path) -> str:
    return page.read_text(encoding="utf-8")


@functools.cache
def code(page: Path) -> list[str]:
    """Each line of a block of code, and each code span; without what programs have answered."""
    lines: list[str] = []
    prose: list[str] = []
    language: str | None = None
    for line in text(page).replace("\\\n", " ").splitlines():
        fence = re.match(r" *```(\w*)", line)
        if fence:
            language = fence[1] if language is None else None
        elif language is None:
            prose.append(line)
        elif language not in ("text", "json", "mermaid"):
            lines.append(line)
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", "\n".join(prose))]


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", text(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
class TestPage:
    def test_links_lead_somewhere(self, page: Path) -> None:
        for link in re.findall(r"\]\(([^)\s]+)\)", text(page)):
            if not link.startswith(("http://", "https://")):
                name, _, anchor = link.partition("#")
                target = (page.parent / name).resolve() if name else page
                assert target.exists(), link
                assert not anchor or anchor in slugs(target), link

    def test_make_targets_and_their_variables_are_there(self, page: Path) -> None:
        targets = set(re.findall(r"^([a-z]+(?: [a-z]+)*):", MAKEFILE, re.MULTILINE))
        known = {name for line in targets for name in line.split()}
        for line in code(page):
            for words in re.findall(r"(?<![\w/.-])make((?: +[-\w='.]+)+)", line):
                for word in words.split():
                    name, given, value = word.partition("=")
                    if given:
                        assert re.search(rf"\b{name}\b", MAKEFILE), line
                        stack = re.sub(r"-(\d|lost)$", "", value)  # a second one of its kind
                        assert name != "STACK" or (ROOT / f"Pulumi.{stack}.yaml").exists(), line
                    elif not word.startswith("-"):
                        assert word in known, line
                    else:
                        assert word in MAKES_OWN, line

    def test_paths_are_there(self, page: Path) -> None:
        tops = "|".join(path.name for path in ROOT.iterdir() if path.is_dir() and path.name[0] not in "._")
        named = rf"(?<![\w/.:{{}}$-])((?:{tops})(?:/[\w.-]+)+/?|Pulumi\.[\w-]+\.yaml)"
        for line in code(page):
            for path in re.findall(named, line):
                assert (ROOT / path.replace("-lost.yaml", ".yaml")).exists(), line

    def test_the_apis_paths_are_there(self, page: Path) -> None:
        for line in code(page):
            for path in re.findall(r"(?:/api/v1|\$\{?(?:api|API)\}?)(/[\w/{}$.-]+)", line):
                given = path.strip("/.").split("/")
                assert any(fits(given, one) for one in api_paths()), line

    def test_commands_and_flags_are_there(self, page: Path) -> None:
        for line in code(page):
            for program, rest in re.findall(r"python -m ([\w.]+)([^|;#`)]*)", line):
                assert (ROOT / program.replace(".", "/")).exists() or program in ("json.tool", "venv"), line
                if program in PROGRAMS:
                    self._check(program, rest.split(), line)

    @staticmethod
    def _check(program: str, words: list[str], line: str) -> None:
        commands = [word for word in words[:1] if re.fullmatch(r"[a-z-]+", word) and word[0] != "-"]
        if program == "localcloud" and words[:1] == ["user"]:
            commands = words[:2]
        for depth, command in enumerate(commands):
            assert re.search(rf"\b{command}\b", help_of(program, *commands[:depth])), line
        said = help_of(program, *commands)
        for flag in words:
            if flag.startswith("--"):
                assert flag.partition("=")[0] in said or flag == "--help", line

    def test_keys_and_variables_are_there(self, page: Path) -> None:
        for line in code(page):
            for key in re.findall(r"\bibkr:[a-z]\w*(?:\.[a-z]\w*)*", line):
                assert re.search(rf"`{re.escape(key)}[`.\[]", settings_page()), line
            for name in re.findall(r"(?<![\w$./-])[A-Z][A-Z]+(?:_[A-Z]+)+\b(?!/)", line):
                assert name in known_words() or name.startswith(PLACEHOLDERS), line


@functools.cache
def api_paths() -> list[list[str]]:
    """The parts of each, without what all have in front."""
    paths = [path.removeprefix("/api/v1/").split("/") for path in api().openapi()["paths"]]
    # A page may leave out what all requests of its kind begin with.
    return paths + [path[2:] for path in paths if path[:2] == ["brokers", "interactivebrokers"]]


def fits(given: list[str], path: list[str]) -> bool:
    """Whether a path, or its beginning, is the one of the API with something in place of each parameter."""
    return len(given) <= len(path) and all(
        mine == theirs or theirs.startswith("{") or mine.startswith(("$", "{"))
        for mine, theirs in zip(given, path, strict=False)
    )


@functools.cache
def settings_page() -> str:
    """What docs/settings.md has to say."""
    return settings.page()


@functools.cache
def help_of(program: str, *commands: str) -> str:
    """What a program says of itself, or of one of its commands."""
    done = subprocess.run(
        [sys.executable, "-m", program, *commands, "--help"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@functools.cache
def known_words() -> set[str]:
    """Names in capitals that stand somewhere in the code."""
    whole = [text(path) for path in sources()] + [settings_page()]
    return {word for one in whole for word in re.findall(r"\b[A-Z][A-Z]+(?:_[A-Z]+)+\b", one)}


def sources() -> Iterator[Path]:
    """Programs, stacks, workflows: everything but the pages and their tests."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name in filter(None, listed.stdout.split("\0")):
        source = name.endswith((".py", ".yml", ".yaml", ".j2", "Makefile"))
        if source and not name.startswith("tests/docs") and (ROOT / name).exists():
            yield ROOT / name


def test_every_page_is_found_from_the_index() -> None:
    index = text(ROOT / "docs" / "README.md")
    linked = {(ROOT / "docs" / name).resolve() for name in re.findall(r"\]\(([^)#]+)", index)}
    assert {page for page in PAGES if page.parent != ROOT} - linked == {ROOT / "docs" / "README.md"}
    assert "docs/README.md" in text(ROOT / "README.md")


def test_the_dev_container_forwards_the_services_own_address() -> None:
    local = yaml.safe_load(text(ROOT / "Pulumi.local.yaml"))["config"]["ibkr:fleet"]["serviceUrl"]
    assert f'"{local.removeprefix("http://")}"' in text(ROOT / ".devcontainer" / "devcontainer.json")
