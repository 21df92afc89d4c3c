"""The command line, `python -m broker`: tables for people, `--json` for programs."""
