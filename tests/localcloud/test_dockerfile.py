"""What a Dockerfile says about running its image."""

from __future__ import annotations

import pytest

from localcloud.machines.dockerfile import read_dockerfile


def test_the_last_stage_counts_with_what_it_inherits() -> None:
    image = read_dockerfile(
        """
        ARG VERSION=3.12
        FROM python:$VERSION-slim AS base
        ENV A=1 B="two words" \\
            # a comment between continued lines
            C=$A/x
        ENV E=$A$C
        WORKDIR /app
        FROM other AS tests
        CMD ["pytest"]
        FROM base
        ENV D the old form
        WORKDIR src
        ENTRYPOINT ["python", "-m", "broker.service"]
        CMD ["serve"]
        """
    )
    # One instruction sees the variables as they were before it: Docker's rule.
    assert image.env == {"A": "1", "B": "two words", "C": "/x", "E": "1/x", "D": "the old form"}
    assert (image.entrypoint, image.command) == (["python", "-m", "broker.service"], ["serve"])
    assert image.workdir == "/app/src"


def test_an_entry_point_empties_an_inherited_command() -> None:
    image = read_dockerfile('FROM a AS b\nCMD ["x"]\nFROM b\nENTRYPOINT ["y"]')
    assert (image.entrypoint, image.command) == (["y"], [])


def test_shell_form_goes_to_a_shell() -> None:
    assert read_dockerfile("FROM a\nCMD python x.py").command == ["/bin/sh", "-c", "python x.py"]


def test_variables_have_defaults() -> None:
    image = read_dockerfile("FROM a\nENV P=${NOTHING:-8080} Q=${P}1")
    assert image.env["P"] == "8080"


def test_a_file_without_a_stage_is_no_dockerfile() -> None:
    with pytest.raises(ValueError, match="no FROM"):
        read_dockerfile("RUN true")
