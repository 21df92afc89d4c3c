"""Reading unit files. The lines are of the kind that our units have, and what systemd.syntax(7) shows."""

from __future__ import annotations

import math

import pytest

from localcloud.machines.unitfile import (
    UnitError,
    command_line,
    parse,
    parse_environment_file,
    seconds,
    split_words,
)


def test_a_key_may_be_given_several_times_and_an_empty_one_forgets() -> None:
    unit = parse("x.service", "[Unit]\nAfter=a.service b.service\nAfter=c.service\n[Service]\nExecStart=/a\n"
                 "ExecStart=\nExecStart=/b\n")  # fmt: skip
    assert unit.words("Unit", "After") == ["a.service", "b.service", "c.service"]
    assert [command.words for command in unit.commands("ExecStart")] == [("/b",)]


def test_a_line_may_go_on_and_comments_are_skipped() -> None:
    unit = parse(
        "x.service", "# comment\n[Service]\nExecStart=/a one \\\n  # inner comment\n  two\n; other\n"
    )
    assert unit.commands("ExecStart")[0].words == ("/a", "one", "two")


def test_a_line_that_is_no_assignment_is_named_with_its_number() -> None:
    with pytest.raises(UnitError, match=r"x\.service:2"):
        parse("x.service", "[Service]\nnonsense\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("90", 90.0), ("15min", 900.0), ("6h", 21600.0), ("1min 30s", 90.0), ("500ms", 0.5), ("2.5", 2.5)],
)
def test_a_time_span_is_in_seconds(text: str, expected: float) -> None:
    assert seconds(text) == expected


def test_infinity_is_a_time_span() -> None:
    assert math.isinf(seconds("infinity"))


@pytest.mark.parametrize("text", ["soon", "5 parsecs", "-1"])
def test_what_is_no_time_span_is_refused(text: str) -> None:
    with pytest.raises(UnitError, match="isn't a time span"):
        seconds(text)


def test_words_may_be_quoted_and_escaped() -> None:
    assert split_words(r"""a "b c" 'd "e"' f\ g h"i j"k""") == ["a", "b c", 'd "e"', "f g", "hi jk"]


def test_an_open_quote_is_refused() -> None:
    with pytest.raises(UnitError, match="a quote isn't closed"):
        split_words('a "b')


def test_variables_are_split_at_blanks_only_without_braces() -> None:
    environment = {"ONE": "x", "TWO": "y z"}
    command = command_line("/p ${TWO} $TWO --a=${ONE} $$ONE ${NONE}")
    assert command.expand(environment) == ["/p", "y z", "y", "z", "--a=x", "$ONE", ""]


def test_an_instance_of_a_template_knows_its_name() -> None:
    unit = parse("gateway@live.service", "[Service]\nExecStart=/p --mode=%i %n %p 100%%\n")
    words = ("/p", "--mode=live", "gateway@live.service", "gateway", "100%")
    assert unit.commands("ExecStart")[0].words == words


def test_a_dash_in_front_says_that_failure_is_fine() -> None:
    assert not command_line("-/bin/false").failure_counts
    assert command_line("+/bin/false").failure_counts
    assert command_line("-+/bin/false x").words == ("/bin/false", "x")


def test_an_environment_file_has_quotes_and_comments() -> None:
    text = '# comment\nA="two words"\nB=plain\n\n; other\nC=\'q\'\nD=a=b\nE=x "y"\n'
    assert parse_environment_file(text) == {
        "A": "two words",
        "B": "plain",
        "C": "q",
        "D": "a=b",
        "E": 'x "y"',
    }


def test_environment_assignments_share_a_line() -> None:
    unit = parse("x.service", '[Service]\nEnvironment=DISPLAY=:1 HOME=/h\nEnvironment="A=b c"\n')
    assert unit.environment() == {"DISPLAY": ":1", "HOME": "/h", "A": "b c"}


def test_directories_come_with_their_mode() -> None:
    unit = parse(
        "x.service", "[Service]\nRuntimeDirectory=a b\nRuntimeDirectoryMode=0700\nStateDirectory=c\n"
    )
    assert unit.directories() == [("/run/a", 0o700), ("/run/b", 0o700), ("/var/lib/c", 0o755)]
