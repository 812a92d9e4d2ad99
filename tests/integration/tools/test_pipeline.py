"""A run's way through a worker, in this process: claim, run under its limits, check, record, clean up."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from django.conf import settings as django_settings
from django.db import connection
from django.utils import timezone

from protocol import outbox
from protocol.domain.messages import ErrorPayload
from protocol.models import Session
from security.models import AuditEvent
from tests.integration.tools.conftest import WORKER
from tools import services
from tools.authoring import Progress
from tools.domain.states import ExecutionState
from tools.models import Execution, ExecutionEvent
from tools.services.pipeline import Claim, Outcome, claim_execution, record_outcome
from tools.services.progress import MAX_EVENTS_PER_RUN, ProgressRecorder

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.usefixtures("samples", "without_collector"),
    # The default method uses the very signal that ends a tool.
    pytest.mark.timeout(60, method="thread"),
]
# What ends a run drops the database connection, which takes a test's own transaction with it.
strikes = pytest.mark.django_db(transaction=True)

Run = Callable[..., Execution]


def get_error(execution: Execution) -> ErrorPayload:
    return msgspec.json.decode(execution.error_json, type=ErrorPayload)


def get_timeline(execution: Execution) -> list[tuple[int, str, dict[str, Any]]]:
    return [
        (event.position, event.kind, msgspec.json.decode(event.data_json))
        for event in ExecutionEvent.objects.filter(execution=execution).order_by("position")
    ]


def list_scratch() -> list[Path]:
    root = Path(django_settings.MCP.data_dir) / "scratch"
    return sorted(root.iterdir()) if root.exists() else []


def read_answers(session: Session) -> list[dict[str, Any]]:
    entries = outbox.read_after({session.id: 0}).get(session.id, [])
    return [
        {"sequence": entry.sequence, "to": entry.correlation_id, **msgspec.json.decode(entry.payload)}
        for entry in entries
    ]


# Runs that end well


def test_a_real_tool_runs_and_everything_is_recorded(run: Run, session: Session) -> None:
    execution = run("text.count_words", {"text": "one two\nthree"}, session=session, message_id="m-1")
    assert execution.state == "succeeded"
    assert msgspec.json.decode(execution.output_json or "") == {"words": 3, "lines": 2, "characters": 13}
    assert (execution.attempt, execution.worker, execution.error_json) == (1, WORKER, "")
    assert execution.started_at is not None
    assert execution.finished_at is not None
    assert execution.created_at <= execution.started_at <= execution.finished_at
    assert get_timeline(execution) == [
        (1, "state", {"state": "queued", "attempt": 0}),
        (2, "state", {"state": "running", "attempt": 1}),
        (3, "state", {"state": "succeeded", "attempt": 1}),
    ]
    assert execution.event_count == 3
    assert read_answers(session) == [
        {
            "sequence": 1,
            "to": "m-1",
            "command": "tools.execute",
            "result": {
                "execution_id": str(execution.id),
                "state": "succeeded",
                "output": {"words": 3, "lines": 2, "characters": 13},
            },
        }
    ]


@pytest.mark.parametrize("value", [None, 0, "", [], {"a": [None, 1.5, "é"]}, 2**53 - 1])
def test_any_json_is_an_output_and_comes_back_as_it_was(run: Run, session: Session, value: Any) -> None:
    execution = run("sample_tools.echo", {"value": value}, session=session)
    assert msgspec.json.decode(execution.output_json or "") == value
    assert read_answers(session)[0]["result"]["output"] == value


@pytest.mark.parametrize("power", [53, 63])
def test_an_output_may_hold_what_both_encodings_do(run: Run, power: int) -> None:
    assert msgspec.json.decode(run("sample_tools.count_high", {"power": power}).output_json or "") == 2**power


def test_nobody_is_answered_who_did_not_wait(run: Run, session: Session) -> None:
    run("sample_tools.echo", {"value": 1}, mode=Execution.Mode.QUEUE, session=session, message_id="m-1")
    assert [(answer["sequence"], answer["result"]["state"]) for answer in read_answers(session)] == [(1, "queued")]


# Claiming


def test_a_run_is_claimed_once(accept: Run) -> None:
    execution = accept("sample_tools.echo", {"value": 1})
    claim = claim_execution(execution_id=execution.id, worker="first")
    assert claim is not None
    assert (claim.execution.attempt, claim.execution.worker) == (1, "first")
    assert claim_execution(execution_id=execution.id, worker="second") is None
    assert claim_execution(execution_id=uuid.uuid4(), worker="second") is None
    execution.refresh_from_db()
    assert (execution.attempt, execution.worker, execution.state) == (1, "first", "running")


def test_running_it_again_does_nothing(run: Run, session: Session) -> None:
    execution = run("sample_tools.echo", {"value": 1}, session=session)
    before = (Execution.objects.values().get(), get_timeline(execution), read_answers(session))
    services.run_execution(execution_id=execution.id, worker="another")
    assert (Execution.objects.values().get(), get_timeline(execution), read_answers(session)) == before


def test_the_end_is_the_tools_limit_or_the_callers_deadline(accept: Run) -> None:
    soon = timezone.now() + timedelta(seconds=2)
    for deadline, seconds in ((None, 10.0), (soon, 2.0)):
        execution = accept("text.count_words", {"text": ""}, deadline=deadline)
        claim = claim_execution(execution_id=execution.id, worker=WORKER)
        assert claim is not None
        assert (claim.ends_at - claim.started_at).total_seconds() == pytest.approx(seconds, abs=0.5)


# Runs that fail

FAILURES: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "a ToolError": ("sample_tools.report", {"times": 0, "end": "bad luck"}, "tool.execution_failed", "bad luck"),
    "an exception": ("sample_tools.fail", {}, "tool.execution_failed", "RuntimeError"),
    "SystemExit": ("sample_tools.leave", {}, "tool.execution_failed", "SystemExit"),
    "KeyboardInterrupt": ("sample_tools.interrupt", {}, "tool.execution_failed", "KeyboardInterrupt"),
    "CancelledError": ("sample_tools.cancel_itself", {}, "tool.execution_failed", "CancelledError"),
    "an output of the wrong type": ("sample_tools.lie", {}, "tool.invalid_output", ""),
    "an output too large": ("sample_tools.swell", {"size": 1_048_576}, "tool.invalid_output", "1048576"),
    "a number too high": ("sample_tools.count_high", {"power": 70}, "tool.invalid_output", ""),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_an_outcome_with_its_code(
    run: Run, session: Session, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    tool, value, code, said = FAILURES[name]
    execution = run(tool, value, session=session, message_id="m-1")
    assert execution.state == "failed"
    assert execution.output_json is None
    error = get_error(execution)
    assert (error.code, error.category, error.retryable) == (code, "tool", False)
    assert error.details["execution_id"] == str(execution.id)
    assert error.trace_id == execution.trace_id
    assert said in error.message
    (answer,) = read_answers(session)
    assert {key: answer[key] for key in ("to", "code", "message")} == {
        "to": "m-1",
        "code": code,
        "message": error.message,
    }
    assert get_timeline(execution)[-1][2] == {"state": "failed", "attempt": 1}
    assert list_scratch() == []


def test_of_an_unexpected_failure_the_caller_is_told_the_class_and_the_log_the_rest(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        execution = run("sample_tools.fail")
    assert "swordfish" not in execution.error_json
    assert "swordfish" in caplog.text
    assert execution.trace_id in caplog.text
    assert str(execution.id) in caplog.text


def test_an_output_of_exactly_the_limit_is_taken(run: Run, settings: Any) -> None:
    settings.MCP = msgspec.structs.replace(settings.MCP, max_output_size_bytes=1024)
    assert run("sample_tools.swell", {"size": 1022}).state == "succeeded"
    refused = run("sample_tools.swell", {"size": 1023})
    assert get_error(refused).details == {
        "size_bytes": 1025,
        "limit_bytes": 1024,
        "execution_id": str(refused.id),
    }


def test_a_tool_whose_code_is_not_here_never_started(accept: Run, declared: dict[str, Any]) -> None:
    execution = accept("sample_tools.echo", {"value": 1})
    del declared["sample_tools.echo@1.0.0"]
    services.run_execution(execution_id=execution.id, worker=WORKER)
    execution.refresh_from_db()
    assert get_error(execution).code == "tool.unavailable"
    assert get_error(execution).retryable is True


def test_only_the_definition_that_was_accepted_is_run(accept: Run) -> None:
    execution = accept("sample_tools.echo", {"value": 1})
    Execution.objects.filter(id=execution.id).update(definition_hash="0" * 64)
    services.run_execution(execution_id=execution.id, worker=WORKER)
    execution.refresh_from_db()
    assert get_error(execution).code == "tool.unavailable"


# Runs that do not end by themselves

ENDLESS = {
    "sample_tools.loop_forever": False,
    "sample_tools.loop_idempotently": True,
    "sample_tools.swallow_everything": False,
    "sample_tools.keep_reporting": False,
}


@strikes
@pytest.mark.parametrize("tool", ENDLESS)
def test_a_tool_that_does_not_end_is_ended(run: Run, session: Session, tool: str) -> None:
    started = time.monotonic()
    execution = run(tool, session=session)
    limit = execution.timeout_seconds
    assert limit <= time.monotonic() - started < limit + 3
    assert execution.state == "timed_out"
    error = get_error(execution)
    assert (error.code, error.retryable) == ("tool.timeout", ENDLESS[tool])
    assert error.details == {"execution_id": str(execution.id)}
    assert read_answers(session)[0]["code"] == "tool.timeout"
    assert list_scratch() == []
    positions = [position for position, _, _ in get_timeline(execution)]
    assert positions == sorted(set(positions))
    assert positions[-1] == execution.event_count


@strikes
def test_the_callers_deadline_ends_a_run_before_the_tools_own_limit(run: Run, tmp_path: Path) -> None:
    deadline = timezone.now() + timedelta(seconds=0.4)
    execution = run("sample_tools.wait_for", {"path": str(tmp_path / "never")}, deadline=deadline)
    assert execution.state == "timed_out"
    assert execution.finished_at is not None
    assert execution.finished_at >= deadline


@strikes
def test_a_run_that_is_claimed_past_its_deadline_never_starts(accept: Run, tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    execution = accept(
        "sample_tools.wait_for", {"path": str(tmp_path / "there")}, deadline=timezone.now() - timedelta(seconds=1)
    )
    services.run_execution(execution_id=execution.id, worker=WORKER)
    execution.refresh_from_db()
    assert execution.state == "timed_out"
    assert execution.progress_message == ""
    assert get_error(execution).retryable is True
    assert "-" not in get_error(execution).message


@strikes
def test_an_interrupted_tool_leaves_no_transaction_behind(run: Run) -> None:
    """It is struck while it begins and ends transactions; what is recorded next must still be recorded."""
    for _ in range(3):
        execution = run("sample_tools.keep_the_database_busy")
        assert execution.state == "timed_out"
        assert not connection.in_atomic_block
        assert connection.get_autocommit()


# Late


def finish(claim: Claim, output_json: str = "1") -> bool:
    recorder = ProgressRecorder(execution=claim.execution, channel="", first_position=claim.execution.event_count + 1)
    outcome = Outcome(state=ExecutionState.SUCCEEDED, output_json=output_json)
    return record_outcome(claim=claim, outcome=outcome, recorder=recorder)


@pytest.fixture
def claimed(accept: Run, session: Session) -> Claim:
    execution = accept("sample_tools.echo", {"value": 1}, session=session, message_id="m-1")
    claim = claim_execution(execution_id=execution.id, worker=WORKER)
    assert claim is not None
    return claim


def test_what_comes_after_the_end_changes_nothing(
    claimed: Claim, session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    execution = claimed.execution
    assert finish(claimed, "1") is True
    before = (Execution.objects.values().get(), get_timeline(execution), read_answers(session))
    assert finish(claimed, "2") is False
    assert services.expire_execution(execution_id=execution.id) is False
    assert (Execution.objects.values().get(), get_timeline(execution), read_answers(session)) == before
    assert str(execution.id) in caplog.text
    late = AuditEvent.objects.get(action="execution.came_late")
    assert (late.resource_name, late.outcome) == (str(execution.id), "succeeded")


@pytest.mark.parametrize("change", [{"attempt": 2}, {"worker": "another"}, {"state": "queued", "worker": ""}])
def test_only_the_attempt_that_runs_may_finish(claimed: Claim, session: Session, change: dict[str, Any]) -> None:
    Execution.objects.filter(id=claimed.execution.id).update(**change)
    assert finish(claimed) is False
    assert read_answers(session) == []
    assert Execution.objects.get().finished_at is None


def test_progress_of_an_attempt_that_lost_its_run_is_not_written(claimed: Claim) -> None:
    recorder = ProgressRecorder(execution=claimed.execution, channel="", first_position=3)
    services.expire_execution(execution_id=claimed.execution.id)
    for _ in range(500):
        recorder.report(Progress(fraction=0.5))
    assert [kind for _, kind, _ in get_timeline(claimed.execution)] == ["state"] * 3
    execution = Execution.objects.get()
    assert (execution.event_count, execution.progress_fraction) == (3, None)


# Expiring


def test_a_run_that_no_worker_took_is_ended_and_may_be_sent_again(accept: Run, session: Session) -> None:
    execution = accept("sample_tools.wait_for", {"path": "x"}, session=session, message_id="m-1")
    assert services.expire_execution(execution_id=execution.id) is True
    execution.refresh_from_db()
    assert (execution.state, execution.attempt) == ("timed_out", 0)
    assert (get_error(execution).code, get_error(execution).retryable) == ("tool.timeout", True)
    assert [(answer["to"], answer["code"]) for answer in read_answers(session)] == [("m-1", "tool.timeout")]
    assert get_timeline(execution)[-1] == (2, "state", {"state": "timed_out", "attempt": 0})
    assert claim_execution(execution_id=execution.id, worker=WORKER) is None
    assert services.expire_execution(execution_id=execution.id) is False


@pytest.mark.parametrize(
    ("tool", "is_retryable"), [("sample_tools.loop_forever", False), ("sample_tools.loop_idempotently", True)]
)
def test_a_run_that_began_may_be_sent_again_only_if_that_does_no_harm(
    accept: Run, tool: str, is_retryable: bool
) -> None:
    execution = accept(tool)
    claim_execution(execution_id=execution.id, worker=WORKER)
    assert services.expire_execution(execution_id=execution.id) is True
    execution.refresh_from_db()
    assert (execution.state, get_error(execution).retryable) == ("timed_out", is_retryable)
    assert get_timeline(execution)[-1][0] == execution.event_count == 3


def test_what_does_not_exist_cannot_expire() -> None:
    assert services.expire_execution(execution_id=uuid.uuid4()) is False


def test_only_waiting_runs_past_their_callers_deadline_are_overdue(accept: Run) -> None:
    long_ago = timezone.now() - timedelta(minutes=1)
    overdue = accept("sample_tools.echo", {"value": 1}, deadline=long_ago)
    accept("sample_tools.echo", {"value": 1}, deadline=timezone.now() - timedelta(seconds=1))
    accept("sample_tools.echo", {"value": 1}, deadline=long_ago, mode=Execution.Mode.QUEUE)
    claim_execution(execution_id=accept("sample_tools.echo", {"value": 1}, deadline=long_ago).id, worker=WORKER)
    assert services.expire_overdue_executions() == 1
    overdue.refresh_from_db()
    assert overdue.state == "timed_out"
    assert services.expire_overdue_executions() == 0


# Progress


def test_progress_stands_in_the_timeline_between_start_and_end(run: Run) -> None:
    execution = run("sample_tools.report", {"times": 3})
    assert [(position, kind) for position, kind, _ in get_timeline(execution)] == [
        (1, "state"),
        (2, "state"),
        (3, "progress"),
        (4, "progress"),
        (5, "progress"),
        (6, "state"),
    ]
    assert get_timeline(execution)[3][2] == {"fraction": 1 / 3, "message": "step 1"}
    assert (execution.progress_fraction, execution.progress_message) == (2 / 3, "step 2")
    assert execution.event_count == 6


@pytest.mark.parametrize("times", [MAX_EVENTS_PER_RUN, MAX_EVENTS_PER_RUN + 1, 3 * MAX_EVENTS_PER_RUN])
def test_progress_is_bounded_and_the_last_report_stands(run: Run, times: int) -> None:
    execution = run("sample_tools.report", {"times": times})
    timeline = get_timeline(execution)
    assert sum(kind == "progress" for _, kind, _ in timeline) == MAX_EVENTS_PER_RUN
    positions = [position for position, _, _ in timeline]
    assert positions == sorted(set(positions))
    assert timeline[-1][1:] == ("state", {"state": "succeeded", "attempt": 1})
    assert positions[-1] == execution.event_count
    assert execution.progress_message == f"step {times - 1}"


def test_progress_is_in_the_timeline_also_of_a_run_that_failed(run: Run) -> None:
    execution = run("sample_tools.report", {"times": 2, "end": "enough"})
    assert [kind for _, kind, _ in get_timeline(execution)] == ["state", "state", "progress", "progress", "state"]


# Cleaning up


@pytest.mark.parametrize("fails", [False, True])
def test_the_scratch_folder_is_private_empty_and_gone_afterwards(run: Run, fails: bool) -> None:
    execution = run("sample_tools.use_scratch", {"fail": fails})
    text = get_error(execution).message if fails else msgspec.json.decode(execution.output_json or "")
    folder = Path(text)
    assert folder.parent == Path(django_settings.MCP.data_dir) / "scratch"
    assert folder.name.startswith(str(execution.id))
    assert not folder.exists()
    assert folder.parent.stat().st_mode & 0o077 == 0
    assert list_scratch() == []
