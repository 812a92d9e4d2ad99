"""Asking a running attempt's worker to end it: once is enough, and more is taken."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from security.domain.authorization import AccountPrincipal
from tools import services
from tools.domain.supervision import CancelMode
from tools.models import Execution
from tools.services.pipeline import claim_execution

pytestmark = pytest.mark.django_db


@pytest.fixture
def running(accept: Callable[..., Execution]) -> Execution:
    execution = accept("sample_tools.echo", {"value": 1})
    assert claim_execution(execution_id=execution.id, worker="worker-1@host") is not None
    return execution


@pytest.fixture
def cancel(agent: AccountPrincipal, running: Execution) -> Callable[[CancelMode], bool]:
    return lambda mode: services.cancel_execution(
        principal=agent, execution_id=running.id, mode=mode, trace_id=uuid.uuid4().hex
    )


def test_asking_again_does_not_put_off_the_kill(cancel: Callable[[CancelMode], bool], running: Execution) -> None:
    assert cancel(CancelMode.GRACEFUL)
    running.refresh_from_db()
    asked_at = running.cancel_requested_at
    assert asked_at is not None
    assert cancel(CancelMode.GRACEFUL)
    running.refresh_from_db()
    assert running.cancel_requested_at == asked_at


def test_a_kill_is_taken_after_a_graceful_cancel_and_not_the_other_way_round(
    cancel: Callable[[CancelMode], bool], running: Execution
) -> None:
    for mode, expected in (("graceful", "graceful"), ("kill", "kill"), ("graceful", "kill")):
        assert cancel(CancelMode(mode))
        running.refresh_from_db()
        assert running.cancel_mode == expected
