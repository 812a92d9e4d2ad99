"""``python -m benchmarks.inside STEP``: what the lists' benchmark does in the installation's own environment.

Each step is a process with the product's settings. ``fill`` fills the database, and counts the queries of every
question when it is small and when it is full; ``analyse`` lets the database gather what its planner goes by.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import django
import msgspec

django.setup()

from django.db import connection  # noqa: E402  # Django's models need its settings
from django.db.backends.signals import connection_created  # noqa: E402  # as above
from django.test import Client  # noqa: E402  # as above

from benchmarks.facts import OPERATOR, Facts, Filled, Filling, Queries  # noqa: E402  # as above
from benchmarks.filling import fill, find_facts, prepare  # noqa: E402  # as above
from benchmarks.questions import find_fault, list_questions, read_cursor  # noqa: E402  # as above
from protocol.models import Session  # noqa: E402  # as above
from security.models import Account, AuditEvent  # noqa: E402  # as above
from tools.models import Execution, ExecutionEvent  # noqa: E402  # as above

SMALL_ROWS: Final = 6_000
"""Of the database that is small."""
FILLED: Final = (Execution, ExecutionEvent, AuditEvent, Session)
LOOKS: Final = ("security_revocationmark", "security_addressrule")
"""Looked at again after half a second by whoever comes first: not what a question takes."""


class QueryCounter:
    """Counts what every connection of this process executes, whichever thread has it."""

    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def attach(self, connection: Any, **_: Any) -> None:
        """Hear of the connection's queries from now on; a receiver of ``connection_created``."""
        if self._note not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._note)

    def _note(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:  # noqa: FBT001  # Django's
        if not any(f'FROM "{table}"' in sql for table in LOOKS):
            with self._lock:
                self.count += 1
        return execute(sql, params, many, context)


def run_fill(*, rows: int, only: str) -> Filled:
    """Fill an empty database.

    Raises:
        SystemExit: it is not empty.
    """
    if Execution.objects.exists():
        sys.exit("the database has runs; the lists need an empty one")
    counter = QueryCounter()
    connection_created.connect(counter.attach)
    connection.close()
    cast = prepare()
    rows_small = min(SMALL_ROWS, rows // 4)
    started = time.perf_counter()
    with prepare_for_filling():
        fill(cast, rows=rows_small, seed=1)
    filling_seconds = time.perf_counter() - started
    small, faults_small = count_queries(counter, find_facts(cast, rows=rows_small), only=only)
    started = time.perf_counter()
    with prepare_for_filling():
        fill(cast, rows=rows - rows_small, seed=2)
    filling_seconds += time.perf_counter() - started
    facts = find_facts(cast, rows=rows)
    full, faults_full = count_queries(counter, facts, only=only)
    return Filled(
        facts=facts,
        seconds=filling_seconds,
        rows_small=rows_small,
        queries={name: Queries(small=small[name], full=full[name]) for name in full},
        faults=[*(f"small: {fault}" for fault in faults_small), *(f"full: {fault}" for fault in faults_full)],
    )


@contextmanager
def prepare_for_filling() -> Iterator[None]:
    """Without what makes writing safe, which a filling that is cut off does not need; nor are statistics made yet."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA synchronous=OFF")
            cursor.execute("PRAGMA cache_size=-1000000")
        else:
            cursor.execute("SET synchronous_commit = off")
            for model in FILLED:
                table = connection.ops.quote_name(model._meta.db_table)
                cursor.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    yield
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def count_queries(counter: QueryCounter, facts: Facts, *, only: str) -> tuple[dict[str, int], list[str]]:
    """The number of each question's queries, asked in this process; and what was wrong with the answers."""
    signed_in = Client(headers={"host": "127.0.0.1"})
    signed_in.force_login(Account.objects.get(username=OPERATOR))
    counts: dict[str, int] = {}
    faults: list[str] = []
    for question in list_questions(facts, only=only):
        client = signed_in
        if not question.is_console:
            key = facts.keys[question.account]
            client = Client(headers={"host": "127.0.0.1", "authorization": f"Bearer {key}"})
        cursor_target = question.make_cursor_target()
        cursor = None if cursor_target is None else read_cursor(client.get(cursor_target).content)
        target = question.make_target(cursor)
        # The first one reads what is remembered afterwards.
        client.get(target)
        before = counter.count
        answer = client.get(target)
        counts[question.name] = counter.count - before
        fault = find_fault(question, status=answer.status_code, body=answer.content)
        if fault is not None:
            faults.append(f"{question.name}: {fault}")
    return counts, faults


def run_analyse() -> None:
    """Gather the planner's statistics, as the database's own housekeeping does sooner or later."""
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            cursor.execute("ANALYZE")
            return
        for model in FILLED:
            table = connection.ops.quote_name(model._meta.db_table)
            cursor.execute(f"ALTER TABLE {table} RESET (autovacuum_enabled)")
            cursor.execute(f"VACUUM (ANALYZE) {table}")


if __name__ == "__main__":
    if sys.argv[1] == "fill":
        filling = msgspec.json.decode(sys.stdin.buffer.read(), type=Filling)
        sys.stdout.buffer.write(msgspec.json.encode(run_fill(rows=filling.rows, only=filling.only)))
    else:
        run_analyse()
