"""Rendering of user data: what a value can and can't do to the document. No machine is needed for it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from yaml.emitter import Emitter

from broker.fleet.cloud_init import (
    GCE_METADATA_LIMIT,
    TemplateError,
    _UserDataDumper,
    render,
    template_directory,
)


@pytest.fixture
def templates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own folder of templates."""
    (tmp_path / "files" / "area").mkdir(parents=True)
    monkeypatch.setenv("CLOUD_INIT_DIR", str(tmp_path))
    return tmp_path


def write(templates: Path, text: str) -> None:
    (templates / "t.yaml").write_text(text)


def rendered(values: dict[str, str]) -> dict[str, object]:
    document = yaml.safe_load(render("t.yaml", values))
    assert isinstance(document, dict)
    return document


def test_the_result_is_a_cloud_config(templates: Path) -> None:
    write(templates, "runcmd: [[echo, hello]]\n")
    assert render("t.yaml", {}).startswith("#cloud-config\n")


def test_one_item_stands_for_as_many_as_a_list_of_values_has(templates: Path) -> None:
    write(
        templates, "runcmd:\n- [a]\n- !each {of: units, item: [enable, '${unit}@${mode}']}\n- ['${mode}']\n"
    )
    units = [{"unit": "x"}, {"unit": "y"}]
    commands = [["a"], ["enable", "x@paper"], ["enable", "y@paper"], ["paper"]]
    assert yaml.safe_load(render("t.yaml", {"units": units, "mode": "paper"})) == {"runcmd": commands}
    assert yaml.safe_load(render("t.yaml", {"units": [], "mode": "m"})) == {"runcmd": [["a"], ["m"]]}


def test_a_value_of_an_entry_that_nothing_reads_is_refused(templates: Path) -> None:
    write(templates, "runcmd:\n- !each {of: units, item: ['${unit}']}\n")
    with pytest.raises(TemplateError, match=r"units\.typo"):
        render("t.yaml", {"units": [{"unit": "x", "typo": "y"}]})
    with pytest.raises(TemplateError, match="needs a list of values for units"):
        render("t.yaml", {"units": "x"})
    with pytest.raises(TemplateError, match="needs a value for unit"):
        render("t.yaml", {"units": [{}]})


def test_a_value_cannot_add_a_key(templates: Path) -> None:
    write(templates, "timezone: ${zone}\n")
    evil = 'UTC", runcmd: [reboot], x: "'
    assert rendered({"zone": evil}) == {"timezone": evil}


def test_a_value_stays_a_string_whatever_it_looks_like(templates: Path) -> None:
    write(templates, "a: ${a}\n")
    for text in ("yes", "0644", "null", "1e3", "{}", "!!python/object:x", "- a", "*x", "&y"):
        assert rendered({"a": text}) == {"a": text}


def test_a_value_of_several_lines_is_refused_where_it_stands_alone(templates: Path) -> None:
    write(templates, "a: ${a}\n")
    with pytest.raises(TemplateError, match="a holds a control character"):
        render("t.yaml", {"a": "one\ntwo"})


def test_a_value_is_filled_in_once_only(templates: Path) -> None:
    write(templates, "a: ${a}\nb: ${b}\n")
    assert rendered({"a": "${b}", "b": "secret"}) == {"a": "${b}", "b": "secret"}


def test_a_missing_value_is_named(templates: Path) -> None:
    write(templates, "a: ${first} ${second}\n")
    with pytest.raises(TemplateError, match="needs a value for second"):
        render("t.yaml", {"first": "x"})


def test_a_value_that_nothing_reads_is_named(templates: Path) -> None:
    write(templates, "a: ${first}\n")
    with pytest.raises(TemplateError, match="no placeholder for secnod"):
        render("t.yaml", {"first": "x", "secnod": "y"})


def test_something_that_is_no_string_is_refused(templates: Path) -> None:
    write(templates, "a: ${a}\n")
    with pytest.raises(TemplateError, match="resolve an Output first"):
        render("t.yaml", {"a": object()})  # type: ignore[dict-item]


def test_an_inlined_file_keeps_its_shell_variables(templates: Path) -> None:
    script = '#!/bin/sh\nset -eu\necho "${name} $HOME"\n'
    (templates / "files" / "area" / "script").write_text(script)
    write(templates, "write_files:\n- path: /x\n  content: !file area/script\n")
    assert rendered({})["write_files"] == [{"path": "/x", "content": script}]


def test_a_file_that_is_not_there_is_named(templates: Path) -> None:
    write(templates, "a: !file area/none\n")
    with pytest.raises(TemplateError, match="area/none"):
        render("t.yaml", {})


def test_base64_carries_any_characters(templates: Path) -> None:
    write(templates, 'a: !base64 "${a}"\n')
    text = "ü\n'\"\\${a}\t😀\x00"
    assert base64.b64decode(str(rendered({"a": text})["a"])).decode() == text


def test_json_carries_any_characters(templates: Path) -> None:
    write(templates, "a: !json\n  k: ${a}\n  l: [1, x]\n")
    text = "ü\n'\"\\😀"
    assert json.loads(str(rendered({"a": text})["a"])) == {"k": text, "l": [1, "x"]}


def test_a_yaml_file_in_the_document_keeps_its_values_apart(templates: Path) -> None:
    write(templates, 'a: !yaml\n  allow: ["${a}", 127.0.0.1]\n')
    evil = "10.0.0.1]\nx: y"
    assert yaml.safe_load(str(rendered({"a": evil})["a"])) == {"allow": [evil, "127.0.0.1"]}


def test_an_environment_file_refuses_what_a_shell_would_interpret(templates: Path) -> None:
    write(templates, "a: !env\n  KEY: ${a}\n")
    assert rendered({"a": "two words"}) == {"a": 'KEY="two words"\n'}
    for text in ('"', "'", "\\", "$x", "`x`"):
        with pytest.raises(TemplateError, match="KEY holds a quote or another"):
            render("t.yaml", {"a": text})
    with pytest.raises(TemplateError, match="KEY holds a control character"):
        render("t.yaml", {"a": "x\nEVIL=1"})


def test_a_docker_env_file_refuses_a_second_line(templates: Path) -> None:
    write(templates, "a: !envlist\n  KEY: ${a}\n")
    assert rendered({"a": "$'\"x"}) == {"a": "KEY=$'\"x\n"}
    with pytest.raises(TemplateError, match="KEY holds a control character"):
        render("t.yaml", {"a": "x\nEVIL=1"})


def test_an_error_never_shows_the_value(templates: Path) -> None:
    write(templates, "a: !env\n  KEY: ${password}\n")
    with pytest.raises(TemplateError) as refused:
        render("t.yaml", {"password": "hunter2$"})
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None, "a chained exception would show it in a traceback"


def test_the_result_is_ascii_since_digitalocean_takes_nothing_else(templates: Path) -> None:
    write(templates, "a: ${a}\n")
    text = render("t.yaml", {"a": "ümläut 😀"})
    assert text.isascii()
    assert yaml.safe_load(text) == {"a": "ümläut 😀"}


def test_user_data_that_is_too_long_for_its_cloud_is_refused(templates: Path) -> None:
    write(templates, "a: ${a}\n")
    with pytest.raises(TemplateError, match="this cloud takes 100"):
        render("t.yaml", {"a": "x" * 100}, limit=100)
    assert len(render("t.yaml", {"a": "x" * (GCE_METADATA_LIMIT - 100)})) < GCE_METADATA_LIMIT


def test_a_template_that_is_no_mapping_is_refused(templates: Path) -> None:
    write(templates, "- a\n")
    with pytest.raises(TemplateError, match="must be a mapping"):
        render("t.yaml", {})


def test_a_template_that_is_not_there_is_named(templates: Path) -> None:
    with pytest.raises(TemplateError, match=r"none\.yaml"):
        render("none.yaml", {})


def test_templates_are_found_beside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUD_INIT_DIR", raising=False)
    assert (template_directory() / "ib-gateway.yaml").is_file()


def test_a_template_or_file_that_changed_is_read_anew(templates: Path) -> None:
    script = templates / "files" / "area" / "script"
    write(templates, "a: !file area/script\n")
    script.write_text("one")
    assert rendered({}) == {"a": "one"}
    script.write_text("two, and longer")
    assert rendered({}) == {"a": "two, and longer"}


class _SlowDumper(_UserDataDumper):
    """With PyYAML's own look at each character."""

    analyze_scalar = Emitter.analyze_scalar


@given(st.text("ab: #-'\"\n\t|>[{}&*!%@=é", max_size=12))
def test_scripts_are_written_as_pyyaml_writes_them(text: str) -> None:
    """Other bytes would replace the machine."""
    document = {"write_files": [{"path": "/a", "content": text}]}
    fast, slow = (
        yaml.dump(document, Dumper=dumper, sort_keys=False, width=1_000_000)
        for dumper in (_UserDataDumper, _SlowDumper)
    )
    assert fast == slow
    assert yaml.safe_load(fast) == document
