"""A tool's input schema as a form, and what is typed into it as an input."""

from __future__ import annotations

from typing import Any

import pytest

from tools.domain.html_patterns import make_html_pattern
from tools.domain.input_forms import (
    MAX_FIELDS,
    FieldKind,
    InputField,
    find_field,
    make_fields,
    make_skeleton,
    read_fields,
    read_json,
)
from tools.domain.schemas import find_violations


def make_schema(properties: dict[str, Any] | None = None, *, required: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties or {},
        "required": list(required),
        "additionalProperties": False,
        "$defs": {"Colour": {"enum": ["red", "green"]}, "Point": {"type": "object"}},
    }


def make_one(part: Any, *, is_required: bool = False) -> InputField:
    fields = make_fields(schema=make_schema({"x": part}, required=("x",) if is_required else ()))
    assert fields is not None
    return fields[0]


def read_one(part: Any, text: str, *, is_required: bool = False) -> Any:
    """What the text is read as: the value, ``...`` for none, or the violation's message."""
    typed = read_fields(fields=[make_one(part, is_required=is_required)], texts=[text])
    if typed.violations:
        assert typed.violations[0].path == "/x"
        return typed.violations[0].message
    return typed.value.get("x", ...)


@pytest.mark.parametrize(
    ("part", "kind"),
    [
        ({"type": "string"}, FieldKind.TEXT),
        ({"type": "string", "maxLength": 100_000}, FieldKind.TEXT),
        ({"type": "string", "maxLength": 100}, FieldKind.LINE),
        ({"type": "string", "pattern": "x"}, FieldKind.LINE),
        ({"type": "string", "format": "uri"}, FieldKind.LINE),
        ({"type": "string", "format": "date"}, FieldKind.DATE),
        ({"type": "integer"}, FieldKind.INTEGER),
        ({"type": "number"}, FieldKind.NUMBER),
        ({"type": "boolean"}, FieldKind.CHOICE),
        ({"enum": ["a", 1, None]}, FieldKind.CHOICE),
        ({"const": "a"}, FieldKind.CHOICE),
        ({"$ref": "#/$defs/Colour"}, FieldKind.CHOICE),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, FieldKind.INTEGER),
        ({"anyOf": [{"$ref": "#/$defs/Colour"}, {"type": "null"}]}, FieldKind.CHOICE),
        ({"type": ["string", "null"], "maxLength": 9}, FieldKind.LINE),
        ({"type": "array", "items": {"type": "string"}}, FieldKind.LIST),
        ({"type": "array", "items": {"type": "integer"}}, FieldKind.LIST),
        ({"type": "array", "items": {"type": "object"}}, FieldKind.JSON),
        ({"type": "array", "items": {"enum": [1, 2]}}, FieldKind.JSON),
        ({"type": "array"}, FieldKind.JSON),
        ({"type": "object"}, FieldKind.JSON),
        ({"$ref": "#/$defs/Point"}, FieldKind.JSON),
        ({"$ref": "#/$defs/Nowhere"}, FieldKind.JSON),
        ({"anyOf": [{"type": "integer"}, {"type": "string"}]}, FieldKind.JSON),
        ({"type": "string", "allOf": [{"minLength": 3}]}, FieldKind.JSON),
        ({"enum": list(range(1000))}, FieldKind.JSON),
        ({}, FieldKind.JSON),
        (True, FieldKind.JSON),
    ],
)
def test_a_property_has_the_field_that_fits(part: Any, kind: FieldKind) -> None:
    assert make_one(part).kind is kind


@pytest.mark.parametrize(
    ("part", "is_required", "attributes"),
    [
        ({"type": "integer", "minimum": 1, "maximum": 9}, False, {"min": "1", "max": "9", "step": "1"}),
        (
            {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 9},
            False,
            {"min": "2", "max": "8", "step": "1"},
        ),
        ({"type": "integer", "minimum": 0.5}, False, {"min": "1", "step": "1"}),
        ({"type": "number", "minimum": 0.5}, True, {"min": "0.5", "step": "any", "required": "required"}),
        (
            {"type": "string", "minLength": 2, "maxLength": 9},
            True,
            {"minlength": "2", "maxlength": "9", "required": "required"},
        ),
        ({"type": "string"}, True, {}),
        ({"type": "string", "pattern": "^[a-z]+$"}, False, {"pattern": "[a-z]+"}),
        ({"type": "array", "items": {"type": "string"}}, True, {}),
        ({"type": "array", "items": {"type": "string"}, "minItems": 1}, True, {"required": "required"}),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, True, {"step": "1"}),
        ({"type": "boolean"}, True, {"required": "required"}),
    ],
)
def test_a_browser_is_told_what_it_can_hold(part: Any, is_required: bool, attributes: dict[str, str]) -> None:
    assert make_one(part, is_required=is_required).attributes == attributes


def test_a_field_says_what_it_is_for() -> None:
    described = make_one({"type": "integer", "title": "How many", "description": "At most.", "default": 7})
    assert (described.label, described.help, described.initial) == ("How many", "At most.", "7")
    plain = make_one({"type": "boolean", "default": False})
    assert (plain.label, plain.initial, [choice.label for choice in plain.choices]) == ("x", "false", ["yes", "no"])
    assert make_one({"type": "array", "items": {"type": "string"}, "default": ["a", "b"]}).initial == "a\nb"
    assert make_one({"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}).initial == ""
    assert make_one({"enum": ["a", "b"], "default": "b"}).initial == '"b"'


@pytest.mark.parametrize(
    ("part", "text", "value"),
    [
        ({"type": "string"}, "a\r\nb", "a\nb"),
        ({"type": "string"}, "  a ", "  a "),
        ({"type": "string"}, "", ...),
        ({"type": "integer"}, " -12 ", -12),
        ({"type": "integer"}, "9007199254740993", 9007199254740993),
        ({"type": "integer"}, "1.5", "is not an integer"),
        ({"type": "integer"}, "9" * 5000, "is not an integer"),
        ({"type": "integer"}, "", ...),
        ({"type": "number"}, "1.5e3", 1500.0),
        ({"type": "number"}, "2", 2),
        ({"type": "number"}, "nan", "is not a number"),
        ({"type": "number"}, "inf", "is not a number"),
        ({"type": "number"}, "two", "is not a number"),
        ({"type": "boolean"}, "true", True),
        ({"type": "boolean"}, "perhaps", "is none of the choices"),
        ({"enum": ["a", 1, {"b": 2}]}, '{"b":2}', {"b": 2}),
        ({"const": 3}, "3", 3),
        ({"type": "string", "format": "date"}, "2026-11-26", "2026-11-26"),
        ({"type": "array", "items": {"type": "string"}}, "a\r\n\r\nb c\n", ["a", "b c"]),
        ({"type": "array", "items": {"type": "integer"}}, "1\n2", [1, 2]),
        ({"type": "array", "items": {"type": "integer"}}, "1\ntwo", "is not an integer"),
        ({}, '{"a": [1]}', {"a": [1]}),
        ({}, "", ...),
    ],
)
def test_what_is_typed_is_read_as_the_field_is(part: Any, text: str, value: Any) -> None:
    read = read_one(part, text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ({"type": "string"}, ""),
        ({"type": "array", "items": {"type": "string"}}, []),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, None),
        ({"type": "integer"}, "is required"),
        ({"type": "boolean"}, "is required"),
        ({}, "is required"),
    ],
)
def test_nothing_typed_where_something_must_be(part: Any, value: Any) -> None:
    assert read_one(part, "", is_required=True) == value


def test_what_is_no_json_is_said() -> None:
    assert read_one({}, "{").startswith("is not JSON")
    assert read_one({}, "[" * 5000).startswith("is not JSON")
    assert read_json(text='{"a": 1}').value == {"a": 1}
    assert read_json(text="").violations[0].path == ""
    assert read_json(text="\ud800").violations


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object"},
        {"type": "array"},
        {"properties": {"a": {}}, "anyOf": [{"required": ["a"]}]},
        {"type": "object", "additionalProperties": {"type": "string"}},
        make_schema({f"p{number}": {} for number in range(MAX_FIELDS + 1)}),
    ],
)
def test_some_inputs_have_no_form(schema: dict[str, Any]) -> None:
    assert make_fields(schema=schema) is None


def test_a_tool_that_takes_nothing_has_an_empty_form() -> None:
    assert make_fields(schema=make_schema()) == ()
    assert read_fields(fields=(), texts=()).value == {}


def test_references_may_lead_in_circles() -> None:
    schema = make_schema({"x": {"$ref": "#/$defs/A"}})
    schema["$defs"] = {"A": {"$ref": "#/$defs/A"}}
    assert make_fields(schema=schema)
    assert make_fields(schema={"$ref": "#"}) is None


def test_what_is_wrong_within_a_field_is_the_fields() -> None:
    fields = make_fields(schema=make_schema({"a/b": {}, "a": {}}))
    assert fields is not None
    assert find_field(fields=fields, path="/a~1b/0") is fields[0]
    assert find_field(fields=fields, path="/a/0/x") is fields[1]
    assert find_field(fields=fields, path="/ab") is None
    assert find_field(fields=fields, path="") is None


def test_a_skeleton_has_what_must_be_there_and_the_defaults() -> None:
    schema = make_schema(
        {
            "name": {"type": "string"},
            "many": {"type": "array"},
            "maybe": {"type": ["integer", "null"]},
            "limit": {"type": "integer", "default": 9},
            "other": {"type": "string"},
        },
        required=("name", "many", "maybe"),
    )
    skeleton = read_json(text=make_skeleton(schema=schema)).value
    assert skeleton == {"name": "", "many": [], "maybe": None, "limit": 9}
    assert find_violations(schema=schema, instance=skeleton) == []


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("^[a-z_.-]+$", r"[a-z_.\-]+"),
        ("abc", r"[\s\S]*abc[\s\S]*"),
        ("a|b", r"[\s\S]*(?:a|b)[\s\S]*"),
        ("^(a|b)$", "(a|b)"),
        (r"^\d{3}-\d{4}$", r"\d{3}-\d{4}"),
        (r"^x\$", r"x\$[\s\S]*"),
        ("^a|b$", None),
        ("(?i)x", None),
        ("(?P<n>x)", None),
        ("[a&&b]", None),
        (r"\-", None),
        (r"\p{L}", None),
        ("^a++$", None),
        ("(", None),
        ("a{", None),
    ],
)
def test_only_patterns_that_are_surely_read_alike_reach_the_browser(pattern: str, expected: str | None) -> None:
    assert make_html_pattern(pattern) == expected
