"""The OpenAPI document is complete: whoever adds a route without words and examples learns of it here."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from broker.service.app import api
from broker.service.document import TAGS
from broker.service.field_comments import field_comments
from broker.service.problem_examples import refusals
from broker.service.problems import MEDIA_TYPE

DOCUMENT = api().openapi()
#: operations that ask for no bearer token
OPEN = {"healthz", "readyz", "health", "enrol_droplet", "log_in", "log_out"}


def operations() -> Iterator[dict[str, Any]]:
    """Each operation, with its path and method."""
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield operation | {"path": path, "method": method.upper()}


def check(schema: dict[str, Any], value: Any) -> str:
    """What is wrong with an example of a schema of the document."""
    whole = schema | {"components": DOCUMENT["components"]}
    validator = Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER)
    return "; ".join(f"{error.json_path}: {error.message}" for error in validator.iter_errors(value))


def examples(media: dict[str, Any]) -> list[Any]:
    """The examples of a body."""
    named = [example["value"] for example in media.get("examples", {}).values()]
    return [*named, *([media["example"]] if "example" in media else [])]


def wrong(operation: dict[str, Any]) -> Iterator[str]:
    """What is missing of an operation, or doesn't hold."""
    for part in ("summary", "description"):
        if len(operation.get(part, "")) < 4:
            yield f"no {part}: write a docstring"
    if len(operation.get("tags", [])) != 1 or operation["tags"][0] not in TAGS:
        yield "no tag of broker.service.document.TAGS"
    if bool(operation.get("security")) is (operation["operationId"] in OPEN):
        yield "whether it needs a token: Depends(bearer), or OPEN of this test"
    for parameter in operation.get("parameters", ()):
        if not parameter.get("description"):
            yield f"nothing says what {parameter['name']} is"
    for name, answer in {"the request": operation.get("requestBody", {}), **operation["responses"]}.items():
        for kind, media in answer.get("content", {}).items():
            found = examples(media)
            if not found:
                yield f"no example of {name} as {kind}: broker.service.examples, or json_schema_extra"
            for value in found:
                if said := check(media.get("schema", {}), value):
                    yield f"the example of {name} isn't what its schema says: {said}"
    for status, answer in operation["responses"].items():
        content = answer.get("content", {})
        if status >= "400" and content.keys() != {MEDIA_TYPE}:
            yield f"{status} is no problem document"
        schema = content.get(MEDIA_TYPE, {}).get("schema")
        if status >= "400" and schema != {"$ref": "#/components/schemas/Problem"}:
            yield f"{status} has no schema that clients know"


@pytest.mark.parametrize(
    "operation", list(operations()), ids=lambda found: f"{found['method']} {found['path']}"
)
def test_an_operation_is_described_with_valid_examples(operation: dict[str, Any]) -> None:
    assert list(wrong(operation)) == []


def test_a_route_that_lacks_any_of_it_would_be_found() -> None:
    bare = {
        "operationId": "new_route",
        "tags": ["new"],
        "parameters": [{"name": "depth"}],
        "responses": {
            "200": {"content": {"application/json": {"schema": {"type": "integer"}}}},
            "404": {"content": {"application/json": {"example": {}, "schema": {"type": "array"}}}},
        },
    }
    assert len(list(wrong(bare))) == 9


def test_names_make_good_methods() -> None:
    names = [operation["operationId"] for operation in operations()]
    assert len(set(names)) == len(names)
    for name in names:
        assert re.fullmatch(r"[a-z]+(_[a-z]+){0,5}", name), name
    assert {"place_order", "cancel_order", "connect_account", "halt_trading", "get_fleet"} <= set(names)


def test_every_field_says_what_it_is() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    silent = [
        f"{name}.{field}"
        for name, schema in schemas.items()
        for field, found in schema.get("properties", {}).items()
        if not found.get("description")
    ]
    assert silent == [], "write it as `#:` above the field"
    assert schemas["Position"]["properties"]["unrealized_plpc"]["description"].startswith("a fraction")
    assert "HTTPValidationError" not in schemas, "wrong requests are answered with problem documents"


def test_refusals_are_those_that_the_service_writes() -> None:
    found = refusals("trading", "place_order", 409)
    assert list(found) == ["duplicate-client-order-id"]
    assert found["duplicate-client-order-id"]["title"] == "The client order id names another order"
    schemes = DOCUMENT["components"]["securitySchemes"]
    assert [(one["scheme"], one["bearerFormat"]) for one in schemes.values()] == [("bearer", "JWT")]


def test_the_command_prints_it_and_needs_no_settings(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "broker.service", "openapi"]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, env={}, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert json.loads(done.stdout) == json.loads(json.dumps(DOCUMENT))


class _Base:
    #: of the base
    first: int


class _Commented(_Base):
    #: two
    #: lines
    second: int
    # above a plain one
    third: int = 3  # behind it, which isn't taken
    fourth: str = "x"  # behind

    fifth: str = "#: in a text"


def test_comments_are_found_above_and_behind_fields() -> None:
    assert field_comments(_Commented) == {
        "first": "of the base",
        "second": "two lines",
        "third": "above a plain one",
        "fourth": "behind",
    }
