"""The ports of tools that need one: leased before the tool begins, given back however its run ends."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from protocol.domain.messages import ErrorPayload
from security.models import PortLease
from tests.integration.tools.conftest import WORKER
from tests.ports import choose_range, hold_port, set_ports
from tools.models import Execution, ToolVersion
from tools.services.pipeline import claim_execution, lease_port
from tools.services.recovery import Loss, recover_execution

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("samples", "without_collector"),
    pytest.mark.timeout(60, method="thread"),
]

FIRST, LAST = choose_range()
Run = Callable[..., Execution]


@pytest.fixture(autouse=True)
def _ranges(settings: Any) -> None:
    set_ports(settings, port_ranges=(str(FIRST),))


def test_a_run_has_a_port_of_its_own_and_gives_it_back(run: Run) -> None:
    execution = run("sample_tools.use_port")
    assert execution.state == "succeeded", execution.error_json
    lease = PortLease.objects.get()
    assert msgspec.json.decode(execution.output_json or "") == lease.port == FIRST
    assert (lease.holder_kind, lease.holder_id, lease.account_id) == (
        "execution",
        execution.id,
        execution.requested_by_id,
    )
    assert (lease.state, lease.end_reason) == ("released", "execution_ended")
    assert run("sample_tools.use_port").state == "succeeded"


def test_a_run_that_fails_gives_it_back_too(run: Run) -> None:
    assert run("sample_tools.use_port", {"fail": True}).state == "failed"
    assert PortLease.objects.get().state == "released"


def test_what_the_tool_leaves_running_is_gone_before(run: Run) -> None:
    assert run("sample_tools.leave_server").state == "succeeded"
    assert PortLease.objects.get().state == "released"
    with socket.create_server(("127.0.0.1", FIRST)):
        pass


def test_without_a_free_port_nothing_begins(run: Run) -> None:
    with hold_port(FIRST):
        execution = run("sample_tools.use_port")
    error = msgspec.json.decode(execution.error_json, type=ErrorPayload)
    assert (execution.state, error.code, error.retryable) == ("failed", "transport.port_unavailable", True)


def test_a_tool_that_asks_for_none_has_none(run: Run) -> None:
    execution = run("sample_tools.want_port")
    assert execution.state == "failed"
    assert not PortLease.objects.exists()


def test_a_lost_attempt_gives_its_port_back(accept: Run, tmp_path: Path) -> None:
    execution = accept("sample_tools.use_port")
    claim = claim_execution(execution_id=execution.id, worker=WORKER)
    assert claim is not None
    allocation = lease_port(claim=claim, scratch=tmp_path)
    assert allocation.port == FIRST
    execution.refresh_from_db()
    assert recover_execution(execution=execution, loss=Loss.LEASE_LAPSED)
    assert PortLease.objects.get().state == "released"


def test_the_need_is_part_of_the_definition(samples: object) -> None:
    assert set(ToolVersion.objects.filter(needs_port=True).values_list("tool__name", flat=True)) == {
        "sample_tools.use_port",
        "sample_tools.leave_server",
    }
