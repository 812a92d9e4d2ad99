"""SQL that is compiled once: the inserts, conditional updates and look-ups of the paths that every call takes.

Django compiles a query each time it runs, which costs these paths several times what the database takes (ADR 0011).
What is asked for here is simple: whole rows in, columns out, equality in the condition. Everything else is the ORM's.
Values are prepared and converted by the models' own fields, so that both see the same. All on the default database,
inside whatever transaction the caller has open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import Any

from django.db import connection
from django.db.models import Field, Model
from msgspec import Struct

Values = Mapping[str, Any]
"""Attribute names (``session_id``) and values; ``None`` in a condition is SQL's ``IS NULL``."""


class Plus(Struct, frozen=True):
    """In an update's values: what the column has, and so much."""

    amount: int


def insert(*rows: Model) -> None:
    """Insert new rows of one model; an id that the database gives is not read back.

    Raises:
        IntegrityError: a constraint refuses one of them.
    """
    model = type(rows[0])
    sql = _compile_insert(model, connection.vendor)
    fields = _get_inserted_fields(model)
    parameters = [[field.get_db_prep_save(field.pre_save(row, True), connection) for field in fields] for row in rows]  # noqa: FBT003  # takes no keyword
    with connection.cursor() as cursor:
        if len(parameters) == 1:
            cursor.execute(sql, parameters[0])
        else:
            cursor.executemany(sql, parameters)
    for row in rows:
        row._state.adding, row._state.db = False, connection.alias  # noqa: SLF001  # as Model.save does


def update(model: type[Model], *, where: Values, values: Values) -> int:
    """Set ``values`` where everything in ``where`` holds; how many rows."""
    sql = _compile_update(model, connection.vendor, _get_shape(where), _get_update_shape(values), ())
    with connection.cursor() as cursor:
        cursor.execute(sql, [*_prepare(model, values), *_prepare_condition(model, where)])
        return int(cursor.rowcount)


def update_returning(
    model: type[Model], *, where: Values, values: Values, names: tuple[str, ...]
) -> tuple[Any, ...] | None:
    """As ``update``, of one row at most; its columns ``names`` as they are then, or ``None``: there was none."""
    sql = _compile_update(model, connection.vendor, _get_shape(where), _get_update_shape(values), names)
    with connection.cursor() as cursor:
        cursor.execute(sql, [*_prepare(model, values), *_prepare_condition(model, where)])
        row = cursor.fetchone()
    return None if row is None else _convert(model, names, row)


def select(model: type[Model], *, where: Values, names: tuple[str, ...]) -> list[tuple[Any, ...]]:
    """The columns ``names`` of the rows where everything in ``where`` holds, in no order."""
    sql = _compile_select(model, connection.vendor, _get_shape(where), names)
    with connection.cursor() as cursor:
        cursor.execute(sql, _prepare_condition(model, where))
        rows = cursor.fetchall()
    return [_convert(model, names, row) for row in rows]


@lru_cache(maxsize=256)
def get_names(model: type[Model]) -> tuple[str, ...]:
    """Of all its columns, as ``Model.from_db`` takes them."""
    return tuple(field.attname for field in model._meta.concrete_fields)


def _get_shape(where: Values) -> tuple[tuple[str, bool], ...]:
    return tuple((name, value is None) for name, value in where.items())


def _get_update_shape(values: Values) -> tuple[tuple[str, bool], ...]:
    return tuple((name, type(value) is Plus) for name, value in values.items())


def _prepare(model: type[Model], values: Values) -> list[Any]:
    fields = _get_fields(model)
    return [
        value.amount if type(value) is Plus else fields[name].get_db_prep_save(value, connection)
        for name, value in values.items()
    ]


def _prepare_condition(model: type[Model], where: Values) -> list[Any]:
    return _prepare(model, {name: value for name, value in where.items() if value is not None})


def _convert(model: type[Model], names: tuple[str, ...], row: Iterable[Any]) -> tuple[Any, ...]:
    converted = list(row)
    for position, expression, converters in _get_converters(model, connection.vendor, names):
        value = converted[position]
        for convert in converters:
            value = convert(value, expression, connection)
        converted[position] = value
    return tuple(converted)


@lru_cache(maxsize=256)
def _get_fields(model: type[Model]) -> dict[str, Field[Any, Any]]:
    return {field.attname: field for field in model._meta.concrete_fields}


@lru_cache(maxsize=256)
def _get_inserted_fields(model: type[Model]) -> tuple[Field[Any, Any], ...]:
    return tuple(field for field in model._meta.concrete_fields if not field.db_returning)


@lru_cache(maxsize=256)
def _get_converters(
    model: type[Model], _vendor: str, names: tuple[str, ...]
) -> tuple[tuple[int, Any, tuple[Callable[..., Any], ...]], ...]:
    fields = _get_fields(model)
    found = []
    for position, name in enumerate(names):
        column = fields[name].get_col(model._meta.db_table)
        converters = (*connection.ops.get_db_converters(column), *fields[name].get_db_converters(connection))
        if converters:
            found.append((position, column, converters))
    return tuple(found)


@lru_cache(maxsize=256)
def _compile_insert(model: type[Model], _vendor: str) -> str:
    columns = [_quote(field.column) for field in _get_inserted_fields(model)]
    places = ", ".join(["%s"] * len(columns))
    return f"INSERT INTO {_quote(model._meta.db_table)} ({', '.join(columns)}) VALUES ({places})"  # noqa: S608  # names are ours


@lru_cache(maxsize=256)
def _compile_update(
    model: type[Model],
    _vendor: str,
    where: tuple[tuple[str, bool], ...],
    values: tuple[tuple[str, bool], ...],
    returning: tuple[str, ...],
) -> str:
    columns = {name: _quote(field.column) for name, field in _get_fields(model).items()}
    changes = ", ".join(
        f"{columns[name]} = {columns[name]} + %s" if is_plus else f"{columns[name]} = %s" for name, is_plus in values
    )
    sql = f"UPDATE {_quote(model._meta.db_table)} SET {changes}{_compile_condition(columns, where)}"  # noqa: S608  # names are ours
    return f"{sql} RETURNING {', '.join(columns[name] for name in returning)}" if returning else sql


@lru_cache(maxsize=256)
def _compile_select(
    model: type[Model], _vendor: str, where: tuple[tuple[str, bool], ...], names: tuple[str, ...]
) -> str:
    columns = {name: _quote(field.column) for name, field in _get_fields(model).items()}
    wanted = ", ".join(columns[name] for name in names)
    return f"SELECT {wanted} FROM {_quote(model._meta.db_table)}{_compile_condition(columns, where)}"  # noqa: S608  # names are ours


def _compile_condition(columns: Mapping[str, str], where: tuple[tuple[str, bool], ...]) -> str:
    return " WHERE " + " AND ".join(
        f"{columns[name]} IS NULL" if is_null else f"{columns[name]} = %s" for name, is_null in where
    )


def _quote(name: str | None) -> str:
    return str(connection.ops.quote_name(str(name)))
