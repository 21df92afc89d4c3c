"""`python -m broker`: trade and look from a terminal."""

from __future__ import annotations

import sys

from broker.cli.program import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
