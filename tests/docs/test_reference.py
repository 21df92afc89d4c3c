"""docs/settings.md and docs/api.md are what the code says, and leave nothing out."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tools.reference import settings
from tools.reference.__main__ import PAGES

ROOT = Path(__file__).parents[2]
#: what a program finds of its surroundings, and what only tests and the local cloud set
SURROUNDINGS = {"XDG_STATE_HOME", "CLOUD_INIT_DIR", "NO_COLOR"}
READ = re.compile(r"""(?:environment|environ)(?:\.get\(|\[)\s*"([A-Z][A-Z0-9_]+)\"""")


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_is_up_to_date(name: str) -> None:
    shown = (ROOT / name).read_text(encoding="utf-8")
    assert shown == PAGES[name](), "run `make docs` and commit what it writes"


def test_every_row_says_what_it_means() -> None:
    rows = [line.split(" | ") for line in settings.page().splitlines() if line.startswith("| `")]
    assert len(rows) > 180
    assert [row[0] for row in rows if len(row[-1].strip("| ")) < 4] == [], "write a comment at the field"


def test_every_variable_that_the_package_and_the_service_read_is_there() -> None:
    files = [path for path in (ROOT / "broker").rglob("*.py") if "migrations" not in path.parts]
    read = {name for path in files for name in READ.findall(path.read_text(encoding="utf-8"))}
    assert len(read) > 15
    shown = set(re.findall(r"^\| `([A-Z][A-Z0-9_]+)` \|", settings.page(), re.MULTILINE))
    assert read - shown - SURROUNDINGS == set()


def test_secrets_are_marked() -> None:
    page = settings.page()
    for name in (
        "DATABASE_URL",
        "ALPACA_SECRET_KEY",
        "ALERT_URLS",
        "ibkr:databasePassword",
        "ibkr:alertUrls",
    ):
        assert re.search(rf"^\| `{name}` \| text, \*\*secret\*\* ", page, re.MULTILINE), name
