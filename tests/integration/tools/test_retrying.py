"""Running again: once for one wish, whoever repeats the wish."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from protocol.errors import DuplicateId
from protocol.models import OutboxMessage, Session
from security.domain.authorization import AccountPrincipal
from tools import services
from tools.models import Execution

pytestmark = pytest.mark.django_db

Run = Callable[..., Execution]


@pytest.fixture
def ended(run: Run) -> Execution:
    return run("sample_tools.echo", {"value": 1})


@pytest.fixture
def retry(agent: AccountPrincipal, ended: Execution) -> Callable[..., services.Accepted | services.Joined]:
    """Asks for the ended run once more."""

    def retry_it(**fields: Any) -> services.Accepted | services.Joined:
        return services.retry_execution(principal=agent, execution_id=ended.id, trace_id=uuid.uuid4().hex, **fields)

    return retry_it


def test_a_new_run_has_version_and_input_and_says_what_it_repeats(retry: Run, ended: Execution) -> None:
    again = Execution.objects.get(id=retry().execution_id)  # type: ignore[attr-defined]  # what was accepted
    assert (again.version_id, again.input_json, again.retry_of_id) == (ended.version_id, ended.input_json, ended.id)
    assert (again.state, again.mode) == ("queued", "queue")


@pytest.mark.parametrize("by", ["message", "key"])
def test_the_same_wish_again_is_answered_with_the_run_of_the_first(
    retry: Callable[..., Any], session: Session, by: str
) -> None:
    first_message = {"session_id": session.id, "message_id": "m-1"}
    if by == "message":
        wishes = (first_message, first_message)
    else:
        wishes = ({**first_message, "idempotency_key": "k"}, {"idempotency_key": "k"})
    first, second = (retry(**wish) for wish in wishes)
    assert first.execution_id == second.execution_id
    assert (second.answer.command, second.answer.duplicate) == ("executions.retry", True)
    assert Execution.objects.filter(retry_of__isnull=False).count() == 1


def test_its_answer_stands_in_the_sessions_outbox(retry: Callable[..., Any], session: Session) -> None:
    accepted = retry(session_id=session.id, message_id="m-1")
    stored = OutboxMessage.objects.get(session=session)
    assert accepted.recorded.entry.sequence == stored.sequence
    assert b'"executions.retry"' in bytes(stored.payload)
    assert str(accepted.execution_id).encode() in bytes(stored.payload)


def test_two_wishes_without_a_key_are_two_runs(retry: Callable[..., Any]) -> None:
    assert retry().execution_id != retry().execution_id


def test_a_key_does_not_stand_for_another_run(retry: Callable[..., Any], run: Run, agent: AccountPrincipal) -> None:
    retry(idempotency_key="k")
    other = run("sample_tools.echo", {"value": 1})
    with pytest.raises(DuplicateId):
        services.retry_execution(principal=agent, execution_id=other.id, trace_id=uuid.uuid4().hex, idempotency_key="k")
