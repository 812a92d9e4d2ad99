"""Which schemas a signature makes, which signatures are refused, and how values pass between JSON and types."""

from __future__ import annotations

import enum
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Optional, TypedDict

import msgspec
import pytest

from tools.authoring import ToolContext
from tools.domain.schemas import check_schema, find_violations
from tools.domain.signatures import Signature, decode_arguments, encode_output, read_signature
from tools.errors import InvalidInput, InvalidOutput, RegistrationInvalid


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    x: int
    y: float = 0.5


class Tree(msgspec.Struct):
    """A tree."""

    name: str
    children: list[Tree] = []


class Options(TypedDict):
    deep: bool
    depth: NotRequired[int]


def read(function: Callable[..., Any]) -> Signature:
    return read_signature(function=function, context_type=ToolContext)


POINT = {
    "title": "Point",
    "type": "object",
    "properties": {"x": {"type": "integer"}, "y": {"type": "number", "default": 0.5}},
    "required": ["x"],
}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, {"type": "string"}),
        (int, {"type": "integer"}),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (None, {"type": "null"}),
        (Any, {}),
        (list[int], {"type": "array", "items": {"type": "integer"}}),
        (dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}),
        (Optional[str], {"anyOf": [{"type": "string"}, {"type": "null"}]}),  # noqa: UP045  # authors write it so too
        (str | None, {"anyOf": [{"type": "string"}, {"type": "null"}]}),
        (Literal["a", "b"], {"enum": ["a", "b"]}),
        (Annotated[int, msgspec.Meta(ge=1, le=9)], {"type": "integer", "minimum": 1, "maximum": 9}),
        (Annotated[str, msgspec.Meta(pattern="^a$")], {"type": "string", "pattern": "^a$"}),
        (Annotated[datetime, msgspec.Meta(tz=True)], {"type": "string", "format": "date-time"}),
        (date, {"type": "string", "format": "date"}),
        (uuid.UUID, {"type": "string", "format": "uuid"}),
        (Colour, {"title": "Colour", "enum": ["blue", "red"]}),
        (Point, POINT),
        (list[Point], {"type": "array", "items": {"$ref": "#/$defs/Point"}, "$defs": {"Point": POINT}}),
        (
            Options,
            {
                "title": "Options",
                "type": "object",
                "properties": {"deep": {"type": "boolean"}, "depth": {"type": "integer"}},
                "required": ["deep"],
            },
        ),
    ],
)
def test_schemas_of_types(hint: Any, schema: dict[str, Any]) -> None:
    def function(value):  # type: ignore[no-untyped-def]  # the annotations are this test's cases
        return value

    function.__annotations__ = {"value": hint, "return": hint}
    signature = read(function)
    assert signature.output_schema == schema
    definitions = {"$defs": schema["$defs"]} if "$defs" in schema else {}
    in_place = {key: value for key, value in schema.items() if key != "$defs"}
    if hint in {Colour, Point, Options}:
        definitions, in_place = {"$defs": {hint.__name__: schema}}, {"$ref": f"#/$defs/{hint.__name__}"}
    assert signature.input_schema == {
        "type": "object",
        "properties": {"value": in_place},
        "required": ["value"],
        "additionalProperties": False,
        **definitions,
    }
    assert check_schema(schema=signature.input_schema) == check_schema(schema=signature.output_schema) == []


def test_a_recursive_type_refers_to_itself() -> None:
    def grow(tree: Tree) -> Tree:
        return tree

    schema = read(grow).output_schema
    assert schema["$ref"] == "#/$defs/Tree"
    assert find_violations(schema=schema, instance={"name": "a", "children": [{"name": "b"}]}) == []
    assert find_violations(schema=schema, instance={"name": "a", "children": [{"name": 1}]})


def test_names_defaults_and_documentation() -> None:
    def function(
        text: str,
        context: ToolContext,
        limit: Annotated[int, msgspec.Meta(ge=1, description="From the hint.")] = 10,
        *,
        colours: frozenset[str] = frozenset({"c", "a", "b"}),
        point: Point = Point(1),  # frozen
        names: list[str] = [],  # noqa: B006  # copied for each call
        when: Optional[datetime] = None,  # noqa: UP045
    ) -> dict[str, int]:
        """Do it
        well.

        And more that agents are not shown.

        Args:
            text (str): What to do,
                at length.
            context: Not shown.
            limit: Not shown, the hint has one.

        Returns:
            What was done.
        """
        return {}

    signature = read(function)
    assert signature.summary == "Do it well."
    assert signature.context_parameter == "context"
    assert signature.output_schema["description"] == "What was done."
    properties = signature.input_schema["properties"]
    assert list(properties) == ["text", "limit", "colours", "point", "names", "when"]
    assert signature.input_schema["required"] == ["text"]
    assert properties["text"]["description"] == "What to do, at length."
    assert properties["limit"] == {"type": "integer", "minimum": 1, "default": 10, "description": "From the hint."}
    assert properties["colours"]["default"] == ["a", "b", "c"]
    assert properties["point"]["default"] == {"x": 1, "y": 0.5}
    assert properties["names"]["default"] == []
    assert properties["when"]["default"] is None


def test_defaults_satisfy_the_schema() -> None:
    def function(point: Point = Point(1), when: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        """Do."""

    signature = read(function)
    defaults = {name: schema["default"] for name, schema in signature.input_schema["properties"].items()}
    assert find_violations(schema=signature.input_schema, instance=defaults) == []
    assert decode_arguments(signature=signature, value=defaults) == decode_arguments(signature=signature, value={})


def test_a_function_without_parameters() -> None:
    def function() -> None:
        """Do."""

    signature = read(function)
    assert signature.input_schema == {
        "type": "object",
        "properties": {},
        "required": [],
        "additionalProperties": False,
    }
    assert decode_arguments(signature=signature, value={}) == {}


def takes_variable_positional(*texts: str) -> str: ...  # type: ignore[empty-body]
def takes_variable_named(**texts: str) -> str: ...  # type: ignore[empty-body]
def takes_positional_only(text: str, /) -> str: ...  # type: ignore[empty-body]
def lacks_annotation(text) -> str: ...  # type: ignore[no-untyped-def, empty-body]
def lacks_return(text: str): ...  # type: ignore[no-untyped-def]
def has_unknown_type(text: NoSuchType) -> str: ...  # type: ignore[name-defined, empty-body]  # noqa: F821
def has_type_without_json(path: Path) -> str: ...  # type: ignore[empty-body]
def has_callable(call: Callable[[], None]) -> str: ...  # type: ignore[empty-body]
def returns_type_without_json(text: str) -> complex: ...  # type: ignore[empty-body]
def has_two_contexts(one: ToolContext, two: ToolContext) -> str: ...  # type: ignore[empty-body]
def has_context_in_union(one: ToolContext | None) -> str: ...  # type: ignore[empty-body]
def has_wrong_default(text: str = 5) -> str: ...  # type: ignore[assignment, empty-body]
def has_implicit_optional(text: str = None) -> str: ...  # type: ignore[assignment, empty-body]  # noqa: RUF013
def breaks_its_bounds(count: Annotated[int, msgspec.Meta(ge=1)] = 0) -> str: ...  # type: ignore[empty-body]
def has_filled_mutable_default(names: list[str] = ["a"]) -> str: ...  # type: ignore[empty-body]  # noqa: B006
def yields(text: str) -> Iterator[str]:
    yield text


async def yields_later(text: str) -> AsyncIterator[str]:
    yield text


@pytest.mark.parametrize(
    ("function", "hint"),
    [
        (takes_variable_positional, "*texts"),
        (takes_variable_named, "**texts"),
        (takes_positional_only, "'/'"),
        (lacks_annotation, "'text: str'"),
        (lacks_return, "'-> str'"),
        (has_unknown_type, "NoSuchType"),
        (has_type_without_json, "'path'"),
        (has_callable, "'call'"),
        (returns_type_without_json, "complex"),
        (has_two_contexts, "ToolContext"),
        (has_context_in_union, "'one'"),
        (has_wrong_default, "'text'"),
        (has_implicit_optional, "| None"),
        (breaks_its_bounds, "'count'"),
        (has_filled_mutable_default, "'names'"),
        (yields, "emit_output"),
        (yields_later, "emit_output"),
    ],
)
def test_bad_signatures_say_what_to_change(function: Callable[..., Any], hint: str) -> None:
    with pytest.raises(RegistrationInvalid) as caught:
        read(function)
    assert hint in caught.value.message


def test_input_becomes_typed_arguments() -> None:
    def function(
        point: Point, colour: Colour, when: datetime, blob: bytes, by_id: dict[int, Tree], count: int = 3
    ) -> None:
        """Do."""

    value = {
        "point": {"x": 1},
        "colour": "red",
        "when": "2026-11-20T16:31:00Z",
        "blob": "aGk=",
        "by_id": {"7": {"name": "a"}},
    }
    assert decode_arguments(signature=read(function), value=value) == {
        "point": Point(1),
        "colour": Colour.RED,
        "when": datetime(2026, 11, 20, 16, 31, tzinfo=UTC),
        "blob": b"hi",
        "by_id": {7: Tree("a")},
        "count": 3,
    }


def test_whole_floats_are_integers_as_the_schema_says() -> None:
    def function(count: int, counts: list[int]) -> None:
        """Do."""

    signature = read(function)
    value = {"count": 3.0, "counts": [1.0, 2]}
    assert find_violations(schema=signature.input_schema, instance=value) == []
    decoded = decode_arguments(signature=signature, value=value)
    assert decoded == {"count": 3, "counts": [1, 2]}
    assert isinstance(decoded["count"], int)


def test_one_call_cannot_change_the_next_ones_defaults() -> None:
    def function(names: list[str] = []) -> None:  # noqa: B006  # what is tested
        """Do."""

    signature = read(function)
    decode_arguments(signature=signature, value={})["names"].append("x")
    assert decode_arguments(signature=signature, value={}) == {"names": []}


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"points": [{"x": 1}, {"x": "a"}]}, "/points/1/x"),
        ({"points": 5}, "/points"),
        ({}, ""),
        ({"points": [], "other": 1}, ""),
        ([], ""),
    ],
)
def test_input_that_does_not_fit(value: object, path: str) -> None:
    def function(points: list[Point]) -> None:
        """Do."""

    with pytest.raises(InvalidInput) as caught:
        decode_arguments(signature=read(function), value=value)
    assert caught.value.code == "tool.invalid_input"
    assert caught.value.details["path"] == path


@pytest.mark.parametrize(
    ("value", "output"),
    [
        (None, None),
        ("é", "é"),
        (Point(1), {"x": 1, "y": 0.5}),
        (Tree("a", [Tree("b")]), {"name": "a", "children": [{"name": "b", "children": []}]}),
        ([Colour.RED], ["red"]),
        ({1: (2, 3)}, {"1": [2, 3]}),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00Z"),
        (Decimal("1.5"), "1.5"),
        (b"hi", "aGk="),
    ],
)
def test_output_becomes_json(value: object, output: object) -> None:
    encoded = encode_output(value=value)
    assert msgspec.json.decode(msgspec.json.encode(encoded)) == output
    assert find_violations(schema={"const": output}, instance=encoded) == []


def make_cycle() -> list[Any]:
    cycle: list[Any] = []
    cycle.append(cycle)
    return cycle


@pytest.mark.parametrize(
    "value", [object(), Path(), float("nan"), [float("inf")], "\ud800", {"a": [{"b": 1j}]}, make_cycle()]
)
def test_output_that_has_no_json_form(value: object) -> None:
    with pytest.raises(InvalidOutput) as caught:
        encode_output(value=value)
    assert caught.value.code == "tool.invalid_output"
