"""Which schemas are taken, and what is said of values that break them."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tools.domain.schemas import (
    DIALECT,
    MAX_MESSAGE_CHARACTERS,
    MAX_PATH_CHARACTERS,
    MAX_SCHEMA_BYTES,
    check_schema,
    find_violations,
    get_violation_details,
)


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DIALECT, "type": "object"},
        {"$ref": "#/$defs/a", "$defs": {"a": {"type": "integer"}}},
        {"$ref": "#"},
        {"$ref": DIALECT},
        {"type": "string", "pattern": "(a+)+$"},
        {"type": "string", "format": "no-such-format"},
    ],
)
def test_usable_schemas(schema: dict[str, Any]) -> None:
    assert check_schema(schema=schema) == []


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ([], ""),
        (True, ""),
        ({"type": "nonsense"}, "/type"),
        ({"properties": {"a/b": {"minLength": "x"}}}, "/properties/a~1b/minLength"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, "/$schema"),
        ({"$ref": "#/$defs/none"}, ""),
        ({"type": "string", "pattern": "(?=a)b"}, "/pattern"),
        ({"type": "string", "pattern": r"(a)\1"}, "/pattern"),
        ({"type": "string", "pattern": "(a{1000}){1000}"}, "/pattern"),
        ({"const": float("nan")}, ""),
        ({"const": {1}}, ""),
        ({"const": object()}, ""),
        ({"description": "x" * MAX_SCHEMA_BYTES}, ""),
    ],
)
def test_unusable_schemas(schema: object, path: str) -> None:
    violations = check_schema(schema=schema)
    assert [violation.path for violation in violations] == [path]


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(5_000):
        schema = {"not": schema}
    assert check_schema(schema=schema)


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """An HTTP server that would give any schema, and what it was asked for."""
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/schema.json", asked
        httpd.shutdown()
        thread.join()


def test_nothing_is_fetched_over_http(server: tuple[str, list[str]]) -> None:
    address, asked = server
    base, _, name = address.rpartition("/")
    for schema in (
        {"$ref": address},
        {"properties": {"a": {"$dynamicRef": address}}},
        {"$id": f"{base}/", "$ref": name},
        {"$id": address, "$defs": {"a": {"$ref": "other.json"}}},
    ):
        assert check_schema(schema=schema), schema
        with pytest.raises(ValueError):
            find_violations(schema=schema, instance=1)
    assert asked == []


def test_no_file_is_read(tmp_path: Any) -> None:
    (tmp_path / "schema.json").write_text("{}")
    uri = (tmp_path / "schema.json").as_uri()
    assert check_schema(schema={"$ref": uri})
    assert check_schema(schema={"$id": f"{tmp_path.as_uri()}/", "$ref": "schema.json"})


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 3},
        "born": {"type": "string", "format": "date-time"},
        "tags/x~y": {"type": "array", "items": {"enum": ["a", "b"]}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("instance", "paths"),
    [
        ({"name": "Ada"}, set()),
        ({}, {""}),
        ([], {""}),
        ({"name": 1}, {"/name"}),
        ({"name": "Adam", "tags/x~y": ["a", "c"]}, {"/name", "/tags~1x~0y/1"}),
        ({"name": "Ada", "other": 1}, {""}),
        ({"name": "Ada", "born": "1815-12-10T00:00:00Z"}, set()),
        ({"name": "Ada", "born": "yesterday"}, {"/born"}),
    ],
)
def test_violations_have_json_pointers(instance: object, paths: set[str]) -> None:
    assert {violation.path for violation in find_violations(schema=PERSON, instance=instance)} == paths


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "integer"},
        {"const": 1},
        {"enum": [1, 2]},
        {"maxLength": 3},
        {"pattern": "^a$"},
        {"format": "uuid"},
        {"not": {"type": "string"}},
        {"anyOf": [{"type": "integer"}, {"type": "null"}]},
        {"oneOf": [{"type": "string"}, {"minLength": 1}]},
    ],
)
def test_a_message_never_repeats_the_value(schema: dict[str, Any]) -> None:
    (violation,) = find_violations(schema=schema, instance="hunter2" * 1_000)
    assert "hunter2" not in violation.message
    assert len(violation.message) <= MAX_MESSAGE_CHARACTERS


def test_paths_and_messages_are_bounded_where_the_caller_chose_the_names() -> None:
    schema = {"additionalProperties": {"type": "integer"}, "propertyNames": {"maxLength": 10}}
    violations = find_violations(schema=schema, instance={"x" * 10_000: "y"})
    assert violations
    for violation in violations:
        assert len(violation.message) <= MAX_MESSAGE_CHARACTERS
        assert len(violation.path) <= MAX_PATH_CHARACTERS


def test_the_number_of_violations_is_limited() -> None:
    schema = {"items": {"type": "string"}}
    assert len(find_violations(schema=schema, instance=[1] * 50)) == 20
    assert len(find_violations(schema=schema, instance=[1] * 50, limit=3)) == 3


def test_a_large_wrong_value_is_judged_quickly() -> None:
    """The library alone takes seconds to explain this one; CPU time, so that a busy machine does not matter."""
    schema = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "null"}]}
    instance = [1] * 500_000
    started = time.process_time()
    assert [violation.path for violation in find_violations(schema=schema, instance=instance)] == [""]
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("instance", [{1}, object(), b"x", "\ud800", {"a": {1: 2}}])
def test_what_is_not_json_is_a_violation(instance: object) -> None:
    assert find_violations(schema={"maxProperties": 0}, instance=instance)


def test_details_name_the_first_path_and_all_violations() -> None:
    violations = find_violations(schema={"items": {"type": "string"}}, instance=[1, "a", 2])
    details = get_violation_details(violations)
    assert details["path"] == "/0"
    assert [violation["path"] for violation in details["violations"]] == ["/0", "/2"]
