"""JSON Schema, draft 2020-12: is a schema usable here, and does a value satisfy it.

Schemas come from strangers, and so do the values. So nothing is ever fetched (a reference leads inside the schema or is
refused), patterns run in an engine that does not backtrack, compiled schemas are kept in a bounded cache, and a message
never repeats the value that it is about. Making schemas from Python types is ``tools.domain.signatures``.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeAlias

import jsonschema_rs
import msgspec

JsonSchema: TypeAlias = dict[str, Any]

DIALECT = "https://json-schema.org/draft/2020-12/schema"
MAX_SCHEMA_BYTES = 65_536
MAX_MESSAGE_CHARACTERS = 200
MAX_PATH_CHARACTERS = 500
MAX_EXPLAINED_VALUES = 1_000
"""A value with more parts than this is judged, but not told where it is wrong.

The library finds all violations or none, and ``anyOf`` builds an error for every part of the value: half a million
wrong numbers took it 5.7 s to explain and 0.04 ms to judge.
"""

_PATTERN_OPTIONS = jsonschema_rs.RegexOptions(size_limit=1 << 20, dfa_size_limit=1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One thing wrong: where, as a JSON Pointer (RFC 6901; empty: the whole), and what. Neither repeats the value."""

    path: str
    message: str


def check_schema(*, schema: object) -> list[Violation]:
    """What keeps ``schema`` from being used, paths pointing into the schema; empty: nothing."""
    if not isinstance(schema, dict):
        return [Violation(path="", message="a schema must be a JSON object")]
    try:
        text = msgspec.json.encode(schema)
        is_json = msgspec.json.decode(text) == schema
    except (TypeError, ValueError, RecursionError):
        is_json = False
    if not is_json:
        return [Violation(path="", message="a schema must be JSON, and not nested too deeply")]
    if len(text) > MAX_SCHEMA_BYTES:
        return [Violation(path="", message=f"a schema may take {MAX_SCHEMA_BYTES} bytes at most")]
    if schema.get("$schema", DIALECT) != DIALECT:
        return [Violation(path="/$schema", message=f"only {DIALECT} is understood")]
    try:
        jsonschema_rs.meta.validate(schema)
        _compile(text)
    except jsonschema_rs.ValidationError as error:
        return [_to_violation(error)]
    except ValueError as error:
        return [Violation(path="", message=bound_message(str(error)))]
    return []


def find_violations(*, schema: JsonSchema, instance: object, limit: int = 20) -> list[Violation]:
    """Where ``instance`` (JSON as Python's builtins) does not satisfy ``schema``; at most ``limit``, empty: it does.

    Raises:
        ValueError: ``schema`` is one that ``check_schema`` refuses.
    """
    validator = _compile(msgspec.json.encode(schema))
    try:
        if validator.is_valid(instance):
            return []
        if _has_more_values_than(instance, MAX_EXPLAINED_VALUES):
            return [Violation(path="", message="does not match the schema; it is too large to say where")]
        return [_to_violation(error) for error in islice(validator.iter_errors(instance), limit)]
    except ValueError:
        # What the library cannot walk: not JSON, text with lone surrogates (a UnicodeEncodeError), too deep.
        return [Violation(path="", message="is not JSON, or is nested too deeply")]


def get_violation_details(violations: Sequence[Violation]) -> dict[str, Any]:
    """The violations as an error's ``details``: the first one's ``path``, and all of them."""
    return {
        "path": violations[0].path,
        "violations": [{"path": violation.path, "message": violation.message} for violation in violations],
    }


def bound_message(text: str) -> str:
    """``text``, cut to what a violation's message may hold."""
    return _bound(text, MAX_MESSAGE_CHARACTERS)


@functools.lru_cache(maxsize=256)
def _compile(text: bytes) -> jsonschema_rs.Draft202012Validator:
    """Keyed by the text, so that no caller needs a name for its schema and a stale entry cannot exist."""
    return jsonschema_rs.Draft202012Validator(
        msgspec.json.decode(text),
        validate_formats=True,
        retriever=_refuse_retrieval,
        mask="the value",
        pattern_options=_PATTERN_OPTIONS,
    )


def _refuse_retrieval(_uri: str) -> Any:
    raise ValueError("a reference may lead only inside the schema")


def _to_violation(error: jsonschema_rs.ValidationError) -> Violation:
    pointer = "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in error.instance_path)
    message = error.message
    if isinstance(error.kind, jsonschema_rs.ValidationErrorKind.Format) and error.kind.format == "regex":
        message = "is not a pattern that this server matches (no look-around or back-reference, bounded repetition)"
    return Violation(path=_bound(pointer, MAX_PATH_CHARACTERS), message=bound_message(message))


def _bound(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _has_more_values_than(instance: object, limit: int) -> bool:
    remaining, waiting = limit, [instance]
    while waiting:
        remaining -= 1
        if remaining < 0:
            return True
        value = waiting.pop()
        parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
        if len(parts) > remaining:
            return True
        waiting.extend(parts)
    return False
