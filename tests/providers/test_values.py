"""What crosses the wire comes out as it went in, and what was secret or unknown stays so."""

from __future__ import annotations

from typing import Any

from google.protobuf import struct_pb2
from hypothesis import given
from hypothesis import strategies as st

from localcloud.providers.values import (
    OUTPUT,
    SECRET,
    SIGNATURE,
    UNKNOWN,
    UNKNOWN_WIRE,
    contains_unknown,
    decode,
    dotted,
    encode,
    is_secret,
    without_unknown,
)

scalars = (
    st.text()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
)
plain = st.recursive(
    scalars | st.just(UNKNOWN),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1), inner, max_size=4),
    max_leaves=12,
).filter(lambda value: not (isinstance(value, str) and value == UNKNOWN_WIRE))


@given(st.dictionaries(st.text(min_size=1), plain, max_size=5))
def test_plain_values_come_back_unchanged(values: dict[str, Any]) -> None:
    assert decode(encode(values)).values == values


@given(st.dictionaries(st.text(min_size=1), plain, min_size=1, max_size=5), st.data())
def test_a_secret_comes_back_secret_and_unchanged(values: dict[str, Any], data: st.DataObject) -> None:
    path = (data.draw(st.sampled_from(sorted(values))),)
    found = decode(encode(values, {path}))
    assert found.values == values
    assert found.secrets == {path}


def test_a_secret_below_a_list_is_found_at_its_place() -> None:
    values = {"envs": [{"name": "A", "value": "x"}, {"name": "B", "value": "y"}]}
    assert decode(encode(values, {("envs", 1, "value")})).secrets == {("envs", 1, "value")}


def test_one_mark_covers_all_that_lies_below_it() -> None:
    found = encode({"a": {"b": "x"}}, {("a",), ("a", "b")}).fields["a"].struct_value.fields
    assert found[SIGNATURE].string_value == SECRET
    inner = found["value"].struct_value.fields["b"]
    assert inner.string_value == "x", "a secret within a secret confuses the SDKs"


def test_output_values_count_as_their_value_or_as_unknown() -> None:
    struct = struct_pb2.Struct()
    known = struct.fields["known"].struct_value.fields
    known[SIGNATURE].string_value = OUTPUT
    known["value"].string_value = "v"
    known["secret"].bool_value = True
    struct.fields["later"].struct_value.fields[SIGNATURE].string_value = OUTPUT
    found = decode(struct)
    assert found.values == {"known": "v", "later": UNKNOWN}
    assert found.secrets == {("known",)}


def test_nulls_are_left_out_and_whole_numbers_are_integers() -> None:
    struct = struct_pb2.Struct()
    struct.update({"nothing": None, "port": 4001.0, "share": 0.5})
    assert decode(struct).values == {"port": 4001, "share": 0.5}


def test_unknown_values_are_found_at_any_depth_and_can_be_dropped() -> None:
    value = {"a": [1, {"b": UNKNOWN}], "c": UNKNOWN}
    assert contains_unknown(value)
    assert without_unknown(value) == {"a": [1, {}]}
    assert not contains_unknown(without_unknown(value))


def test_paths_read_as_pulumi_writes_them() -> None:
    assert dotted(("template", "containers", 0, "image")) == "template.containers[0].image"
    assert is_secret(("a", "b"), {("a",)})
    assert not is_secret(("a",), {("a", "b")})
