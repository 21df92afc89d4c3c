"""The reference of the API: docs/api.md, from the OpenAPI document."""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from broker.service.app import api
from broker.service.problem_examples import kinds

HEAD = """\
# API

Made by `make docs` from the OpenAPI document, which the service has at `/openapi.json` and
`python -m broker.service openapi` prints; `/docs` there is for trying it. How to make a client of it:
[a React front end](howto/react.md).
"""


def page() -> str:
    """docs/api.md."""
    document = api().openapi()
    parts = [HEAD, document["info"]["description"]]
    operations = [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    for tag in document["tags"]:
        parts.append(f"## {tag['name'].capitalize()}\n\n{tag['description']}")
        parts += [_operation(name, one) for name, one in operations if tag["name"] in one["tags"]]
    parts.append(
        "## Problems\n\nThe last word of a problem document's `type`, `urn:ibkr-api:problem:<word>`."
    )
    rows = [(f"`{kind}`", str(status), title) for kind, status, title in kinds()]
    parts.append(_table(("type", "status", "title"), rows))
    parts.append("## Schemas")
    parts += [_schema(name, one) for name, one in sorted(document["components"]["schemas"].items())]
    return "\n\n".join(part.strip() for part in parts) + "\n"


def _operation(name: str, operation: dict[str, Any]) -> str:
    needs = "" if operation.get("security") else " Needs no token."
    parts = [f"### {operation['summary']}", f"`{name}`", operation["description"] + needs]
    rows = [
        (f"`{one['name']}`", one["in"], _kind(one["schema"]), one["description"])
        for one in operation.get("parameters", ())
    ]
    if rows:
        parts.append(_table(("parameter", "in", "type", "meaning"), rows))
    for media in operation.get("requestBody", {}).get("content", {}).values():
        shown = next(iter(media["examples"].values()))["value"]
        parts.append(f"Body: {_kind(media['schema'])}\n\n{_json(shown)}")
    for status, answer in operation["responses"].items():
        if status < "400":
            parts += list(_answer(status, answer))
    refused = [status for status in sorted(operation["responses"]) if status >= "400"]
    if refused:
        parts.append(f"Problems: {', '.join(refused)}")
    return "\n\n".join(parts)


def _answer(status: str, answer: dict[str, Any]) -> Iterator[str]:
    content = answer.get("content", {})
    what = ", ".join(
        _kind(media["schema"]) if kind == "application/json" else f"`{kind}`"
        for kind, media in content.items()
    )
    said = "" if answer["description"] == "Successful Response" else f" ({answer['description']})"
    yield f"Answer {status}{said}" + (f": {what}" if what else "")
    if status == "200" or "200" not in answer:
        for kind, media in content.items():
            shown = media.get("example")
            if kind != "application/json":
                text = str(shown).replace("\r\n", "\n").strip()
                yield f"```\n{text}\n```"
            elif not _named(media["schema"]):
                yield _json(shown)


def _named(schema: dict[str, Any]) -> bool:
    return "$ref" in schema.get("items", schema)


def _schema(name: str, schema: dict[str, Any]) -> str:
    rows = []
    required = schema.get("required", ())
    for field, one in schema.get("properties", {}).items():
        must = "" if field in required else " (optional)"
        rows.append((f"`{field}`", _kind(one) + must, one.get("description", "")))
    parts = [f"### {name}", schema.get("description", ""), _table(("field", "type", "meaning"), rows)]
    parts += [_json(example) for example in schema.get("examples", ())[:1]]
    return "\n\n".join(part for part in parts if part)


def _kind(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{one}`" for one in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return "list of " + _kind(schema["items"]) if "items" in schema else "list"
    return str(schema.get("format") or schema.get("type") or "anything")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in row]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else ""


def _json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2)}\n```"
