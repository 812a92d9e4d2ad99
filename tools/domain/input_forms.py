"""From a tool's input schema to the fields of a form, and from what was typed into them to the input.

A form is one way to write an input; JSON is the other, and the only one for what has no field. Neither judges: what
a version takes is decided where its runs are accepted. How a field looks is the console's matter.
"""

from __future__ import annotations

import enum
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from tools.domain.html_patterns import make_html_pattern
from tools.domain.schemas import JsonSchema, Violation, bound_message

MAX_FIELDS: Final = 50
MAX_CHOICES: Final = 200
MAX_LINE_LENGTH: Final = 10_000
"""A text that may be longer, or of any length, gets a field of several lines."""
_MAX_REFERENCES: Final = 10
_COMPOSITION: Final = frozenset({"allOf", "anyOf", "oneOf", "not", "if", "$ref", "$dynamicRef"})
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,1000}")
_SKELETON: Final[Mapping[str, Any]] = {
    "string": "",
    "integer": 0,
    "number": 0,
    "boolean": False,
    "array": [],
    "object": {},
}


class FieldKind(enum.StrEnum):
    LINE = "line"
    TEXT = "text"
    """Of several lines."""
    DATE = "date"
    INTEGER = "integer"
    NUMBER = "number"
    CHOICE = "choice"
    LIST = "list"
    """Simple values, one a line."""
    JSON = "json"


WRITTEN: Final = frozenset({FieldKind.LINE, FieldKind.TEXT})
"""Kinds whose value is what was typed: nothing typed is a value too."""
_KINDS: Final[Mapping[str, FieldKind]] = {"integer": FieldKind.INTEGER, "number": FieldKind.NUMBER}


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    value_json: str
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class InputField:
    """One property of the input."""

    name: str
    kind: FieldKind
    label: str
    help: str = ""
    is_required: bool
    is_nullable: bool = False
    initial: str = ""
    choices: tuple[Choice, ...] = ()
    item: FieldKind | None = None
    """Of a ``LIST``: what each line is."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What a browser can hold the typed to, as HTML's attributes."""

    @property
    def path(self) -> str:
        """Where its value stands in the input, as a JSON Pointer."""
        return "/" + self.name.replace("~", "~0").replace("/", "~1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Typed:
    """What was typed, as an input; with violations it is none."""

    value: Any
    violations: tuple[Violation, ...] = ()


def make_fields(*, schema: JsonSchema) -> tuple[InputField, ...] | None:
    """A field for each property; ``None``: the input is not an object with named properties, or has too many."""
    resolved = _resolve(schema, root=schema)
    properties = resolved.get("properties", {})
    is_closed = bool(properties) or resolved.get("additionalProperties", True) is False
    if resolved.get("type", "object") != "object" or not is_closed or not _COMPOSITION.isdisjoint(resolved):
        return None
    if len(properties) > MAX_FIELDS:
        return None
    required = resolved.get("required", [])
    return tuple(
        _make_field(name, part, root=schema, is_required=name in required) for name, part in properties.items()
    )


def make_skeleton(*, schema: JsonSchema) -> str:
    """JSON to begin with: what has a default or must be there, as far as the schema says what it is."""
    resolved = _resolve(schema, root=schema)
    required = resolved.get("required", [])
    value: dict[str, Any] = {}
    for name, part in resolved.get("properties", {}).items():
        inner, is_nullable = _unwrap(part, root=schema)
        if "default" in inner and inner["default"] is not None:
            value[name] = inner["default"]
        elif name in required:
            value[name] = None if is_nullable else inner.get("const", _SKELETON.get(str(inner.get("type"))))
    return _format(value)


def read_fields(*, fields: Sequence[InputField], texts: Sequence[str]) -> Typed:
    """The input that was typed into the fields, one text for each; what was left empty is left out, where it may be."""
    value: dict[str, Any] = {}
    violations: list[Violation] = []
    for each, text in zip(fields, texts, strict=True):
        normal = text.replace("\r\n", "\n")
        try:
            if normal or each.is_required:
                value[each.name] = _read(each, normal)
        except ValueError as error:
            violations.append(Violation(path=each.path, message=bound_message(str(error))))
    return Typed(value=value, violations=tuple(violations))


def read_json(*, text: str) -> Typed:
    """The input that was typed as JSON."""
    try:
        return Typed(value=_decode(text))
    except ValueError as error:
        return Typed(value=None, violations=(Violation(path="", message=bound_message(str(error))),))


def find_field(*, fields: Sequence[InputField], path: str) -> InputField | None:
    """The field that shows what stands at the JSON Pointer ``path``, or within it."""
    return next((each for each in fields if path == each.path or path.startswith(f"{each.path}/")), None)


# From the schema to fields


def _make_field(name: str, part: Any, *, root: JsonSchema, is_required: bool) -> InputField:
    schema, is_nullable = _unwrap(part, root=root)
    choices = _list_choices(schema)
    kind = FieldKind.CHOICE if choices else _choose_kind(schema)
    item = _choose_item(schema, root=root) if kind is FieldKind.LIST else None
    if kind is FieldKind.LIST and item is None:
        kind = FieldKind.JSON
    return InputField(
        name=name,
        kind=kind,
        label=str(schema.get("title") or name),
        help=str(schema.get("description", "")),
        is_required=is_required,
        is_nullable=is_nullable,
        initial=_write(schema["default"], kind) if schema.get("default") is not None else "",
        choices=choices,
        item=item,
        attributes=_list_attributes(schema, kind, is_required=is_required and not is_nullable),
    )


def _resolve(part: Any, *, root: JsonSchema) -> JsonSchema:
    """The schema with what it refers to within the root written out, and the words beside the reference kept."""
    schema: JsonSchema = part if isinstance(part, dict) else {}
    for _ in range(_MAX_REFERENCES):
        reference = schema.get("$ref")
        if not isinstance(reference, str) or not reference.startswith("#/"):
            break
        found: Any = root
        for step in reference[2:].split("/"):
            found = found.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            break
        schema = {**found, **{key: value for key, value in schema.items() if key != "$ref"}}
    return schema


def _unwrap(part: Any, *, root: JsonSchema) -> tuple[JsonSchema, bool]:
    """The schema without "or null", and whether it had it."""
    schema = _resolve(part, root=root)
    types = schema.get("type")
    if isinstance(types, list) and "null" in types and len(types) == 2:
        return {**schema, "type": next(each for each in types if each != "null")}, True
    for keyword in ("anyOf", "oneOf"):
        options = schema.get(keyword)
        if isinstance(options, list) and len(options) == 2 and {"type": "null"} in options:
            inner = _resolve(next(each for each in options if each != {"type": "null"}), root=root)
            return {**inner, **{key: value for key, value in schema.items() if key != keyword}}, True
    return schema, False


def _choose_kind(schema: JsonSchema) -> FieldKind:
    if not _COMPOSITION.isdisjoint(schema):
        return FieldKind.JSON
    match schema.get("type"):
        case "string" if schema.get("format") == "date":
            return FieldKind.DATE
        case "string":
            longest = schema.get("maxLength", math.inf)
            is_line = longest <= MAX_LINE_LENGTH or "pattern" in schema or "format" in schema
            return FieldKind.LINE if is_line else FieldKind.TEXT
        case "array":
            return FieldKind.LIST
        case other:
            return _KINDS.get(str(other), FieldKind.JSON)


def _choose_item(schema: JsonSchema, *, root: JsonSchema) -> FieldKind | None:
    item = _resolve(schema.get("items"), root=root)
    kind = _choose_kind(item)
    if "prefixItems" in schema or "enum" in item or kind in (FieldKind.LIST, FieldKind.JSON):
        return None
    return FieldKind.LINE if kind is FieldKind.TEXT else kind


def _list_choices(schema: JsonSchema) -> tuple[Choice, ...]:
    if "const" in schema:
        values = [schema["const"]]
    elif schema.get("type") == "boolean":
        return (Choice(value_json="true", label="yes"), Choice(value_json="false", label="no"))
    else:
        values = schema.get("enum", [])
    if len(values) > MAX_CHOICES or not _COMPOSITION.isdisjoint(schema):
        return ()
    # Null is what an empty field gives.
    return tuple(
        Choice(value_json=_encode(each), label=each if isinstance(each, str) and each else _encode(each))
        for each in values
        if each is not None
    )


def _list_attributes(schema: JsonSchema, kind: FieldKind, *, is_required: bool) -> dict[str, str]:
    found: dict[str, Any] = {}
    if kind in (FieldKind.INTEGER, FieldKind.NUMBER):
        found = {"min": schema.get("minimum"), "max": schema.get("maximum"), "step": "any"}
        if kind is FieldKind.INTEGER:
            found = _bound_integer(schema)
    elif kind in WRITTEN:
        found = {"minlength": schema.get("minLength") or None, "maxlength": schema.get("maxLength")}
        if kind is FieldKind.LINE:
            found["pattern"] = make_html_pattern(schema["pattern"]) if "pattern" in schema else None
    may_be_empty = (kind in WRITTEN and not schema.get("minLength")) or (
        kind is FieldKind.LIST and not schema.get("minItems")
    )
    attributes = {name: str(value) for name, value in found.items() if value is not None}
    return {**attributes, "required": "required"} if is_required and not may_be_empty else attributes


def _bound_integer(schema: JsonSchema) -> dict[str, Any]:
    lowest = [schema["minimum"]] if "minimum" in schema else []
    highest = [schema["maximum"]] if "maximum" in schema else []
    if "exclusiveMinimum" in schema:
        lowest.append(math.floor(schema["exclusiveMinimum"]) + 1)
    if "exclusiveMaximum" in schema:
        highest.append(math.ceil(schema["exclusiveMaximum"]) - 1)
    # A browser counts steps from the minimum, so that one which is no integer would refuse every integer.
    return {
        "min": math.ceil(max(lowest)) if lowest else None,
        "max": math.floor(min(highest)) if highest else None,
        "step": "1",
    }


def _write(value: Any, kind: FieldKind) -> str:
    """A default as it would be typed."""
    if kind is FieldKind.LIST and isinstance(value, list):
        return "\n".join(each if isinstance(each, str) else _encode(each) for each in value)
    if kind is FieldKind.JSON:
        return _format(value)
    return value if isinstance(value, str) and kind is not FieldKind.CHOICE else _encode(value)


# From what was typed to the input


def _read(each: InputField, text: str) -> Any:
    if not text:
        return _read_nothing(each)
    if each.kind is FieldKind.LIST:
        return [_read_simple(each.item or FieldKind.LINE, line) for line in text.split("\n") if line.strip()]
    if each.kind is FieldKind.CHOICE:
        if text not in {choice.value_json for choice in each.choices}:
            raise ValueError("is none of the choices")
        return _decode(text)
    return _decode(text) if each.kind is FieldKind.JSON else _read_simple(each.kind, text)


def _read_nothing(each: InputField) -> Any:
    if each.is_nullable:
        return None
    if each.kind in WRITTEN:
        return ""
    if each.kind is FieldKind.LIST:
        return []
    raise ValueError("is required")


def _read_simple(kind: FieldKind, text: str) -> Any:
    typed = text.strip()
    if kind is FieldKind.INTEGER:
        if not _INTEGER.fullmatch(typed):
            raise ValueError("is not an integer")
        return int(typed)
    if kind is FieldKind.NUMBER:
        return _read_number(typed)
    return typed if kind is FieldKind.DATE else text


def _read_number(text: str) -> int | float:
    if _INTEGER.fullmatch(text):
        return int(text)
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError("is not a number")
    return number


def _encode(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _format(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()


def _decode(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(f"is not JSON: {error}") from error
