"""`make docs`: writes the pages anew, and says which have changed."""

import sys
from collections.abc import Callable

from tools.environments import CHECKOUT
from tools.reference import api, settings

PAGES: dict[str, Callable[[], str]] = {"docs/settings.md": settings.page, "docs/api.md": api.page}


def main() -> int:
    """Returns the exit code."""
    for name, made in PAGES.items():
        path = CHECKOUT / name
        text = made()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
            print(f"{name} is new")
        else:
            print(f"{name} is up to date")
    return 0


if __name__ == "__main__":
    sys.exit(main())
