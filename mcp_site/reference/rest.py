"""The REST page of the reference, made from the API's OpenAPI document."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_site.reference.markdown import JsonSchema, describe_type, list_fields, make_table, wrap_paragraph
from protocol.api.openapi import make_document

METHODS: Final = ("get", "post")
WORDS: Final = """\
What a program may send over HTTP, made from [the OpenAPI document](http.md). Each address is a [command](commands.md)
of the protocol: the same arguments, rights, errors and record as by WebSocket.

`Authorization: Bearer` takes an API key or an access token. Bodies are JSON objects. An error is
`application/problem+json` (RFC 9457) with the code of [the table](errors.md), whose HTTP status it has; `X-Trace-Id` of
an answer finds it in the log. `RateLimit-Limit`, `-Remaining` and `-Reset` say what is left of
the [limit](../how-to/set-limits.md) that leaves the least; one too many is 429 with `Retry-After`. The same request
again with the same `Idempotency-Key` within 24 hours gets the first one's answer, with `Idempotency-Replayed: true`. A
list's `Link` header leads to its next page."""


def make_rest_page(made: str) -> str:
    """Every address, with its parameters, body and answer."""
    # As JSON Schema's own places for definitions, which the tables follow.
    document: dict[str, Any] = msgspec.json.decode(make_document().replace(b"#/components/schemas/", b"#/$defs/"))
    definitions = document["components"]["schemas"]
    operations = [
        (method, path, operation)
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method in METHODS
    ]
    operations.sort(key=lambda entry: (entry[2]["tags"], entry[1], entry[0]))
    overview = make_table(
        ("address", "what it does"),
        (
            (f"[`{name_address(method, path)}`](#{make_anchor(method, path)})", operation["summary"])
            for method, path, operation in operations
        ),
    )
    sections = [describe_operation(*entry, definitions) for entry in operations]
    return "\n\n".join(["# REST", made, WORDS, overview, *sections]) + "\n"


def name_address(method: str, path: str) -> str:
    """``GET /api/v1/tools/``."""
    return f"{method.upper()} {path}"


def make_anchor(method: str, path: str) -> str:
    """The anchor that GitHub gives to the address as a heading."""
    kept = "".join(letter for letter in name_address(method, path).lower() if letter.isalnum() or letter in " -_")
    return kept.replace(" ", "-")


def describe_operation(
    method: str, path: str, operation: Mapping[str, Any], definitions: Mapping[str, JsonSchema]
) -> str:
    """One address: what it takes and answers."""
    parts = [f"## {name_address(method, path)}", *operation["description"].split("\n\n")]
    parameters = operation.get("parameters", [])
    if parameters:
        rows = [
            (
                f"`{entry['name']}`",
                entry["in"],
                describe_type(entry["schema"], definitions),
                entry.get("description", ""),
            )
            for entry in parameters
        ]
        parts.append(make_table(("parameter", "in", "type", "what it is"), rows))
    body = next(iter(operation.get("requestBody", {}).get("content", {}).values()), None)
    if body is not None:
        title = "**Body**" if operation["requestBody"]["required"] else "**Body**, which may be left out"
        parts += [title, show_fields(body["schema"], definitions), show_example(body)]
    for status, reply in operation["responses"].items():
        if status[:1] != "2":
            continue
        parts.append(f"**{status}**: {reply['description']}")
        content = next(iter(reply.get("content", {}).values()), None)
        if content is not None:
            parts += [show_fields(content["schema"], definitions), show_example(content)]
    return "\n\n".join(wrap_paragraph(part) if is_prose(part) else part for part in parts if part)


def is_prose(part: str) -> bool:
    """Whether the part is a paragraph, and no heading, table or block."""
    return not part.startswith(("#", "|", "```"))


def show_fields(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> str:
    """The answer's fields as a table; nothing where it is not one structure."""
    name = schema.get("$ref", "").rpartition("/")[2]
    fields = list_fields({**(definitions[name] if name else schema), "$defs": definitions})
    if not fields:
        return ""
    rows = [
        (f"`{field.path}`", field.type + ("" if field.is_required else "; may be absent"), field.description)
        for field in fields
    ]
    if not any(field.description for field in fields):
        return make_table(("field", "type"), [row[:2] for row in rows])
    return make_table(("field", "type", "what it is"), rows)


def show_example(content: Mapping[str, Any]) -> str:
    """The example as a block."""
    example = content["examples"]["example"]["value"] if "examples" in content else None
    if example is None:
        return ""
    if isinstance(example, str):
        return f"```text\n{example.strip()}\n```"
    return f"```json\n{json.dumps(example, indent=2, ensure_ascii=False)}\n```"
