"""The rules of names, versions and definitions, and the definition hash."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.domain.specification import (
    MAX_CAPABILITIES,
    ToolSpecification,
    get_latest_version,
    is_tool_name,
    is_version,
    order_version,
)
from tools.errors import RegistrationInvalid

SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string"}}}


def make_specification(**changes: Any) -> ToolSpecification:
    fields: dict[str, Any] = {
        "name": "demo.shout",
        "version": "1.0.0",
        "description": "Say it louder.",
        "input_schema": SCHEMA,
        "output_schema": {"type": "string"},
        "capabilities": ("text.change",),
        "is_idempotent": True,
        "timeout_seconds": 5.0,
        "adapter": "python",
        "entry_point": "demo.mcp_tools:shout",
    }
    return ToolSpecification(**{**fields, **changes})


@pytest.mark.parametrize("name", ["a.b", "text.count_words", "a1.b2.c_3", f"a.{'b' * 98}"])
def test_tool_names(name: str) -> None:
    assert is_tool_name(name)


@pytest.mark.parametrize(
    "name", ["", "shout", ".a", "a.", "a..b", "A.b", "a.B", "1a.b", "a.1b", "a-b.c", "a.b\n", "ä.b", f"a.{'b' * 99}"]
)
def test_wrong_tool_names(name: str) -> None:
    assert not is_tool_name(name)


@pytest.mark.parametrize("version", ["0.0.0", "1.0.0", "10.20.30", "1.0.0-beta", "1.0.0-rc.1", "1.0.0-0a.x-y"])
def test_versions(version: str) -> None:
    assert is_version(version)


@pytest.mark.parametrize(
    "version",
    [
        "",
        "1",
        "1.0",
        "1.0.0.0",
        "01.0.0",
        "1.0.0-",
        "1.0.0-01",
        "1.0.0-a..b",
        "1.0.0+build",
        "v1.0.0",
        "1.0.0\n",
        "1.0.٣",
    ],
)
def test_wrong_versions(version: str) -> None:
    assert not is_version(version)
    with pytest.raises(ValueError, match="not a version"):
        order_version(version)


def test_versions_sort_by_precedence() -> None:
    """The example of Semantic Versioning 2.0.0, section 11, with releases around it."""
    ordered = [
        "0.9.0",
        "1.0.0-alpha",
        "1.0.0-alpha.1",
        "1.0.0-alpha.beta",
        "1.0.0-beta",
        "1.0.0-beta.2",
        "1.0.0-beta.11",
        "1.0.0-rc.1",
        "1.0.0",
        "1.2.0",
        "1.10.0",
    ]
    shuffled = random.Random(7).sample(ordered, len(ordered))  # noqa: S311  # an order, no secret
    assert sorted(shuffled, key=order_version) == ordered


@pytest.mark.parametrize(
    ("versions", "latest"),
    [
        (["1.9.0", "1.10.0", "1.2.0"], "1.10.0"),
        (["1.0.0", "2.0.0-beta.1"], "1.0.0"),
        (["1.0.0-alpha", "1.0.0-beta"], "1.0.0-beta"),
    ],
)
def test_the_latest_version_is_a_release_if_there_is_one(versions: list[str], latest: str) -> None:
    assert get_latest_version(versions) == latest


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"name": "shout"}, "/name"),
        ({"version": "1.0"}, "/version"),
        ({"description": " "}, "/description"),
        ({"description": "x" * 2_001}, "/description"),
        ({"capabilities": ("text.x", "nodot")}, "/capabilities/0"),
        ({"capabilities": tuple(f"a.b{number}" for number in range(MAX_CAPABILITIES + 1))}, "/capabilities"),
        ({"timeout_seconds": 0.0}, "/timeout_seconds"),
        ({"timeout_seconds": float("inf")}, "/timeout_seconds"),
        ({"timeout_seconds": float("nan")}, "/timeout_seconds"),
        ({"timeout_seconds": 86_401.0}, "/timeout_seconds"),
        ({"input_schema": {"type": "string"}}, "/input_schema/type"),
        ({"input_schema": {"type": "object", "minProperties": -1}}, "/input_schema/minProperties"),
        ({"output_schema": {"$ref": "file:///etc/hostname"}}, "/output_schema"),
        ({"output_schema": {"const": 2**60}}, ""),
        ({"adapter": ""}, "/adapter"),
        ({"entry_point": ""}, "/entry_point"),
    ],
)
def test_a_wrong_definition_is_refused_with_its_path(changes: dict[str, Any], path: str) -> None:
    with pytest.raises(RegistrationInvalid) as caught:
        make_specification(**changes)
    assert caught.value.code == "tool.registration_invalid"
    assert caught.value.details["path"] == path


def test_everything_wrong_is_told_at_once() -> None:
    with pytest.raises(RegistrationInvalid) as caught:
        make_specification(name="x", version="y")
    assert [violation["path"] for violation in caught.value.details["violations"]] == ["/name", "/version"]


def test_the_hash_is_the_one_that_was_registered() -> None:
    """A constant: were it to change, every registered version would be quarantined."""
    expected = "590a506b27a87135ecfdc2ade0310d37539a8739ccb4caa113d9ffc1da900cc4"
    assert make_specification().definition_hash == expected


@given(st.randoms(use_true_random=False))
def test_the_hash_does_not_depend_on_key_order(random: random.Random) -> None:
    def shuffle(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        keys = list(value)
        random.shuffle(keys)
        return {key: shuffle(value[key]) for key in keys}

    assert make_specification(input_schema=shuffle(SCHEMA)).definition_hash == make_specification().definition_hash


def test_the_hash_does_not_depend_on_how_a_number_is_written() -> None:
    assert make_specification(timeout_seconds=5).definition_hash == make_specification().definition_hash


def test_capabilities_are_a_set() -> None:
    one = make_specification(capabilities=("b.b", "a.a", "b.b"))
    assert one.capabilities == ("a.a", "b.b")
    assert one.definition_hash == make_specification(capabilities=("a.a", "b.b")).definition_hash


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "demo.other"},
        {"version": "1.0.1"},
        {"description": "Other."},
        {"input_schema": {"type": "object"}},
        {"output_schema": {}},
        {"capabilities": ()},
        {"is_idempotent": False},
        {"timeout_seconds": None},
        {"adapter": "http"},
        {"entry_point": "demo.mcp_tools:other"},
    ],
)
def test_every_part_of_the_definition_is_in_the_hash(changes: dict[str, Any]) -> None:
    assert make_specification(**changes).definition_hash != make_specification().definition_hash
