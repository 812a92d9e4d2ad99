"""Emptying the test database although the audit record is append-only: for Django's flush between tests, and no other.

The product has no such way. Here the triggers are taken off and put back in the transaction of the flush itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from django.db import connection, transaction
from django.db.backends.base.operations import BaseDatabaseOperations


@contextmanager
def without_audit_triggers() -> Iterator[None]:
    """Nothing refuses a change of the audit record meanwhile, and no key between its tables is looked at."""
    if connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            # Triggers, those of foreign keys too, fire in the other roles only.
            cursor.execute("SET LOCAL session_replication_role = replica")
            yield
        return
    connection.disable_constraint_checking()
    try:
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND name LIKE 'audit_%'")
            triggers = cursor.fetchall()
            for name, _ in triggers:
                cursor.execute(f"DROP TRIGGER {name}")
            yield
            for _, sql in triggers:
                cursor.execute(sql)
    finally:
        connection.enable_constraint_checking()


def let_flush_empty_the_record() -> None:
    """Have the flush after a test that commits go past the triggers."""
    original = BaseDatabaseOperations.execute_sql_flush

    def execute_sql_flush(self: BaseDatabaseOperations, sql_list: Iterable[str]) -> None:
        with without_audit_triggers():
            original(self, sql_list)

    BaseDatabaseOperations.execute_sql_flush = execute_sql_flush  # type: ignore[method-assign]  # for the tests' process only
