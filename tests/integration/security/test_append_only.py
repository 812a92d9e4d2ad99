"""Nobody changes the record by accident: the ORM refuses, and the database does."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management.color import no_style
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import QuerySet

from protocol.ports import Resource
from security import services
from security.models import AppendOnly, AuditChain, AuditEvent, AuditHead, AuditSeal
from security.services.audit import record_event
from tests.keys import ensure_keys

pytestmark = pytest.mark.django_db
MODELS = [AuditEvent, AuditSeal, AuditHead]
COLUMNS = {AuditEvent: "outcome", AuditSeal: "hash", AuditHead: "hash"}


@pytest.fixture(autouse=True)
def _record() -> None:
    ensure_keys()
    record_event(action="execution.ended", resource=Resource(kind="execution", name="a"), outcome="done")
    services.seal_events()
    services.sign_chain(interval=timedelta(0))


WAYS: dict[str, Callable[[QuerySet[Any]], object]] = {
    "update": lambda rows: rows.update(hash="x"),
    "delete": lambda rows: rows.delete(),
    "raw delete": lambda rows: rows._raw_delete("default"),
    "save": lambda rows: rows.get().save(),
    "forced update": lambda rows: rows.get().save(force_update=True),
    "save by the base": lambda rows: rows.get().save_base(force_update=True),
    "delete of the row": lambda rows: rows.get().delete(),
    "bulk update": lambda rows: rows.bulk_update(list(rows), [COLUMNS[rows.model]]),
    "bulk upsert": lambda rows: rows.bulk_create(
        list(rows),
        update_conflicts=True,
        update_fields=[COLUMNS[rows.model]],
        unique_fields=[rows.model._meta.pk.name],
    ),
    "update or create": lambda rows: rows.update_or_create(pk=rows.get().pk, defaults={COLUMNS[rows.model]: "x"}),
    "base manager": lambda rows: rows.model._base_manager.update(hash="x"),
    "base manager's delete": lambda rows: rows.model._base_manager.all().delete(),
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("way", WAYS)
def test_the_orm_refuses(model: Any, way: str) -> None:
    before = list(model.objects.values())
    with pytest.raises(AppendOnly), transaction.atomic():
        WAYS[way](model.objects.all())
    assert list(model.objects.values()) == before


STATEMENTS = [
    "DELETE FROM {table}",
    "UPDATE {table} SET {column} = 'x'",
    "UPDATE {table} SET {key} = {key}",
    "INSERT INTO {table} SELECT * FROM {table} WHERE true ON CONFLICT ({key}) DO UPDATE SET {key} = 7",
]
OWN_STATEMENTS = {
    "sqlite": "REPLACE INTO {table} ({columns}) SELECT {columns} FROM {table}",
    "postgresql": "TRUNCATE {table} CASCADE",
}


def get_statements(model: Any) -> list[str]:
    names = {
        "table": model._meta.db_table,
        "column": COLUMNS[model],
        "key": model._meta.pk.column,
        "columns": ", ".join(field.column for field in model._meta.concrete_fields),
    }
    return [statement.format(**names) for statement in [*STATEMENTS, OWN_STATEMENTS[connection.vendor]]]


@pytest.mark.parametrize("model", MODELS)
def test_the_database_refuses(model: Any) -> None:
    before = list(model.objects.values())
    for statement in get_statements(model):
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
        assert list(model.objects.values()) == before, statement


@pytest.mark.parametrize("change", ["DELETE FROM {}", "UPDATE {} SET position = 0", "UPDATE {} SET head_number = 0"])
def test_the_chain_does_not_go_back(change: str) -> None:
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(change.format(AuditChain._meta.db_table))


def test_what_flush_runs_is_refused() -> None:
    """The tests' own way around it is in the tests alone."""
    statements = connection.ops.sql_flush(no_style(), [AuditEvent._meta.db_table], allow_cascade=True)
    assert statements
    for statement in statements:
        with pytest.raises(DatabaseError), transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(statement)
