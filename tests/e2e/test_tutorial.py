"""docs/tutorial.md as a newcomer does it: its blocks in one shell, in a folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```\n```text\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
END_OF_BLOCK = "=== end of block"


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """What a clone would hold, with what isn't committed yet; its stack is taken away at the end."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    made = tmp_path / "ibkr"
    for name in filter(None, names):
        if (ROOT / name).exists():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, made / name)
    yield made
    if (made / ".local").exists():
        subprocess.run(["make", "destroy"], cwd=made, capture_output=True, timeout=200)


def plain(text: str) -> list[str]:
    """Lines in which ids, numbers and times are the same for everybody."""
    return [
        re.sub(r"\d+(\.\d+)*", "N", re.sub(r"\b[0-9a-f]{32}\b|(?<=ib-demo-)[0-9a-f]{8}", "ID", line)).rstrip()
        for line in text.splitlines()
    ]


def missing(expected: str, said: str) -> list[str]:
    """The lines of the page that what was said doesn't have, in their order."""
    lines = iter(plain(said))
    return [line for line in plain(expected) if line != "..." and line not in lines]


def test_every_block_of_commands_shows_what_it_says() -> None:
    assert len(BLOCKS) == PAGE.count("```sh\n") >= 10
    assert len(PAGE.split("```")) == 4 * len(BLOCKS) + 1


@pytest.mark.timeout(900)
def test_the_tutorial_does_what_it_says(folder: Path) -> None:
    script = 'make() { command make "$@" || exit 1; }\n'  # what comes after a failed one would wait for ever
    script += "".join(f"{code}\necho '{END_OF_BLOCK}'\n" for code, _ in BLOCKS)
    # A newcomer's shell knows nothing of the make and the engine that run this test.
    foreign = ("PULUMI", "VIRTUAL", "MAKE", "MFLAGS")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    with (folder.parent / "said").open("w") as out:
        shell = subprocess.Popen(["bash", "-c", script], cwd=folder, env=environment, stdout=out, stderr=out)
    try:
        shell.wait(600)
    except subprocess.TimeoutExpired:
        shell.kill()
    said = (folder.parent / "said").read_text(encoding="utf-8")
    parts = said.split(END_OF_BLOCK + "\n")
    assert len(parts) == len(BLOCKS) + 1, said[-5000:]
    for (code, expected), part in zip(BLOCKS, parts, strict=False):
        assert missing(expected, part) == [], f"{code}\n{part}"
    assert not (folder / "order.json").exists()
