"""The figures of the console's first page: what they say, and that they stay cheap however many runs there are."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from protocol.domain.messages import Priority
from tools import selectors
from tools.models import Execution
from tools.selectors.figures import MAX_COUNTED, MAX_MEASURED

pytestmark = pytest.mark.django_db

DAY = timedelta(hours=24)


def multiply(execution: Execution, number: int, **fields: Any) -> None:
    """So many more runs like this one."""
    values = Execution.objects.filter(pk=execution.pk).values().get()
    Execution.objects.bulk_create(Execution(**{**values, "id": uuid.uuid4(), **fields}) for _ in range(number))


def test_the_queue_is_told_by_priority_and_by_its_oldest(accept: Callable[..., Execution]) -> None:
    empty = selectors.measure_queue()
    assert (empty.total, empty.oldest_at, empty.is_complete) == (0, None, True)
    first = accept("sample_tools.echo", {"value": 1})
    accept("sample_tools.echo", {"value": 2})
    accept("sample_tools.echo", {"value": 3}, priority=Priority.URGENT)
    running = accept("sample_tools.echo", {"value": 1})
    Execution.objects.filter(pk=running.pk).update(state="running")
    queue = selectors.measure_queue()
    assert queue.by_priority == {"normal": 2, "urgent": 1}
    assert (queue.total, queue.oldest_at) == (3, first.created_at)
    assert selectors.count_running_executions() == 1


def test_times_are_those_of_what_ended(accept: Callable[..., Execution]) -> None:
    since = timezone.now() - DAY
    assert selectors.measure_run_times(since=since).ran is None
    execution = accept("sample_tools.echo", {"value": 1})
    start = timezone.now()
    for seconds in range(1, 21):
        multiply(
            execution,
            1,
            state="succeeded",
            started_at=execution.created_at + timedelta(seconds=seconds / 10),
            finished_at=execution.created_at + timedelta(seconds=seconds / 10 + seconds),
        )
    multiply(execution, 1, state="cancelled", finished_at=start + timedelta(hours=1))
    times = selectors.measure_run_times(since=since)
    assert times.count == 21
    assert times.ran is not None
    assert times.waited is not None
    assert (times.ran.p50_seconds, times.ran.p95_seconds) == (10.0, 19.0)
    assert times.waited.p50_seconds == pytest.approx(1.1, abs=0.5)


def test_figures_read_no_more_than_they_say(accept: Callable[..., Execution]) -> None:
    execution = accept("sample_tools.echo", {"value": 1})
    multiply(execution, MAX_COUNTED + 5)
    queue = selectors.measure_queue()
    assert (queue.total, queue.is_complete) == (MAX_COUNTED, False)
    Execution.objects.update(state="running")
    assert selectors.count_running_executions() == MAX_COUNTED
    now = timezone.now()
    Execution.objects.update(state="succeeded", started_at=now, finished_at=now)
    assert selectors.measure_run_times(since=now - DAY).count == MAX_MEASURED


@pytest.mark.parametrize(
    ("measure", "index"),
    [
        (selectors.measure_queue, "execution_unfinished"),
        (selectors.count_running_executions, "execution_unfinished"),
        (lambda: selectors.measure_run_times(since=timezone.now() - DAY), "execution_finished"),
        (lambda: selectors.count_executions_by_state(since=timezone.now() - DAY), "execution_created"),
    ],
)
def test_an_index_answers(accept: Callable[..., Execution], measure: Callable[[], object], index: str) -> None:
    if connection.vendor != "sqlite":
        pytest.skip("PostgreSQL chooses by what the table holds, and here it holds next to nothing")
    multiply(accept("sample_tools.echo", {"value": 1}), 10)
    with CaptureQueriesContext(connection) as queries:
        measure()
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN QUERY PLAN {queries[0]['sql']}")
        plan = " ".join(str(row[-1]) for row in cursor.fetchall())
    assert index in plan
    assert "TEMP B-TREE" not in plan
