"""Markdown's tables and diagrams, and JSON Schema as rows of one. What the pages say is ``pages``."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

JsonSchema = Mapping[str, Any]
LINE_LENGTH = 120

_LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {} items",
    "maxItems": "at most {} items",
    "pattern": "matches `{}`",
    "format": "{}",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One value somewhere in a JSON document."""

    path: str
    """``tools[].name``."""
    type: str
    is_required: bool
    default: str
    description: str


def make_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; a ``|`` in a cell stays one."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def wrap_paragraph(text: str) -> str:
    """A paragraph in lines of ``LINE_LENGTH``."""
    return textwrap.fill(text, LINE_LENGTH, break_long_words=False, break_on_hyphens=False)


def make_state_diagram(*, start: str, steps: Iterable[tuple[str, str, str]], ends: Iterable[str]) -> str:
    """A Mermaid diagram of (state, state, label) steps."""
    lines = ["```mermaid", "stateDiagram-v2", f"    [*] --> {start}"]
    for source, target, label in steps:
        lines.append(f"    {source} --> {target}{f': {label}' if label else ''}")
    lines += [f"    {end} --> [*]" for end in ends]
    return "\n".join([*lines, "```"])


def list_fields(schema: JsonSchema) -> list[Field]:
    """Every value that a document of the schema may hold, in the schema's order; the document itself is left out."""
    definitions = schema.get("$defs", {})
    return list(_walk(schema, definitions, path="", seen=frozenset()))


def describe_type(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> str:
    """The schema's type in words, with its limits."""
    schema = _resolve(schema, definitions)
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(describe_type(option, definitions) for option in schema["anyOf"]))
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        of = describe_type(schema.get("items", {}), definitions)
        return ", ".join([f"array of {of}" if of != "any" else "array", *_list_limits(schema)])
    return ", ".join([schema.get("type", "any"), *_list_limits(schema)])


def _list_limits(schema: JsonSchema) -> list[str]:
    return [text.format(schema[name]) for name, text in _LIMITS.items() if name in schema]


def _walk(
    schema: JsonSchema, definitions: Mapping[str, JsonSchema], *, path: str, seen: frozenset[str]
) -> Iterator[Field]:
    name = schema.get("$ref", "")
    if name and name in seen:
        return
    seen, schema = seen | {name}, _resolve(schema, definitions)
    for option in schema.get("anyOf", ()):
        yield from _walk(option, definitions, path=path, seen=seen)
    if schema.get("type") == "array":
        yield from _walk(schema.get("items", {}), definitions, path=f"{path}[]", seen=seen)
    for key, value in schema.get("properties", {}).items():
        below = f"{path}.{key}".lstrip(".")
        yield Field(
            path=below,
            type=describe_type(value, definitions),
            is_required=key in schema.get("required", ()),
            default=_show_default(value),
            description=value.get("description", ""),
        )
        yield from _walk(value, definitions, path=below, seen=seen)


def _resolve(schema: JsonSchema, definitions: Mapping[str, JsonSchema]) -> JsonSchema:
    name = schema.get("$ref", "").removeprefix("#/$defs/")
    return {**definitions[name], **schema} if name in definitions else schema


def _show_default(schema: JsonSchema) -> str:
    if "default" not in schema:
        return ""
    default = schema["default"]
    return f"`{default if isinstance(default, str) else json.dumps(default)}`"
