"""How variables of the environment are described, from their structure: for the docs and for errors."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from mcp_site.errors import BadEnvironment

PROJECT_ROOT: Final = Path(__file__).resolve().parents[2]
PREFIX: Final = "MCP_"
NEAR_MISS_RATIO: Final = 0.75
WITHOUT_PREFIX: Final = frozenset({"database_url", "redis_url", "celery_broker_url"})
"""Fields whose variable is named as the libraries' users know it."""


def name_variable(field: str) -> str:
    """``data_dir`` → ``MCP_DATA_DIR``, ``database_url`` → ``DATABASE_URL``."""
    return field.upper() if field in WITHOUT_PREFIX else f"{PREFIX}{field.upper()}"


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """One variable as the docs show it."""

    name: str
    field: str
    type: str
    default: str
    bounds: str
    description: str
    is_secret: bool
    is_internal: bool


def describe_variables(structure: type[msgspec.Struct]) -> tuple[Variable, ...]:
    """Every field of the structure, in its order."""
    hints = get_type_hints(structure, include_extras=True)
    defaults = dict(zip(structure.__struct_fields__, structure.__struct_defaults__, strict=True))
    return tuple(_describe(field, hints[field], defaults[field]) for field in structure.__struct_fields__)


def _describe(field: str, hint: Any, default: object) -> Variable:
    kind, *metas = get_args(hint)
    meta = next(item for item in metas if isinstance(item, Meta))
    extra = meta.extra or {}
    kind, bounds = _unwrap_optional(kind, meta)
    return Variable(
        name=name_variable(field),
        field=field,
        type=_name_type(kind),
        default=_show_default(default),
        bounds=_show_bounds(bounds),
        description=meta.description or "",
        is_secret="secret" in extra,
        is_internal="internal" in extra,
    )


def _unwrap_optional(kind: Any, meta: Meta) -> tuple[Any, Meta]:
    """What a value is where there is one, and its bounds, which msgspec takes next to the number only."""
    for part in get_args(kind):
        if get_origin(part) is Annotated:
            inner, bounds = get_args(part)
            return inner, bounds
    return kind, meta


def _name_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(get_args(kind))
    if get_origin(kind) is tuple:
        return "list"
    names: dict[Any, str] = {int: "integer", float: "number", bool: "true or false", Path: "path", str: "text"}
    optional = [part for part in get_args(kind) if part is not type(None)]
    return names[optional[0] if optional else kind]


def _show_default(default: object) -> str:
    if isinstance(default, Path):
        return str(default.relative_to(PROJECT_ROOT)) if default.is_relative_to(PROJECT_ROOT) else str(default)
    if isinstance(default, tuple):
        return ",".join(default)
    if isinstance(default, bool):
        return str(default).lower()
    return "" if default in (None, "") else str(default)


def _show_bounds(meta: Meta) -> str:
    bounds = {
        "at least": meta.ge,
        "above": meta.gt,
        "at most": meta.le,
        "of length at least": meta.min_length if meta.min_length != 1 else None,
    }
    return ", ".join(f"{word} {value}" for word, value in bounds.items() if value is not None)


def refuse_near_misses(unknown: list[str], *, known: list[str]) -> None:
    """Refuse a name that is not known and nearly one that is."""
    bare = {name.removeprefix(PREFIX): name for name in known if name.startswith(PREFIX)}
    for name in unknown:
        near = difflib.get_close_matches(name.removeprefix(PREFIX), bare, n=1, cutoff=NEAR_MISS_RATIO)
        if near:
            raise BadEnvironment(f"{name} is not known; did you mean {bare[near[0]]}?")


def explain(message: str, given: Mapping[str, Any], variables: Mapping[str, Variable]) -> str:
    """One line that names the variable, from msgspec's message (``Expected `int` >= 0 - at `$.MCP_PORT```)."""
    found = re.search(r" - at `\$\.(\w+)", message)
    if found is None:
        return message.partition(" - at `$`")[0].replace("\n", " ")
    variable = variables[found[1]]
    expected = " ".join(part for part in (variable.type, variable.bounds) if part)
    value = "" if variable.is_secret else f", not {given[variable.name]!r}"
    return f"{variable.name}: expected {expected}{value}"


def decode_path(kind: type, value: object) -> object:
    """What msgspec asks for types that it does not know: an absolute path."""
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser().absolute()
    raise NotImplementedError(kind)
