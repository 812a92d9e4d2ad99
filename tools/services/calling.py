"""Running a tool for somebody who has no session: accept, then look at the row until it has ended."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

from django.utils import timezone

from protocol.ports import Principal
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.models import Execution
from tools.services.acceptance import ExecutionRequest, accept_execution
from tools.services.expiry import OVERDUE_GRACE, expire_execution

POLL_SECONDS = 0.02


def call_tool(
    *, principal: Principal, tool: str, version: str | None, input_value: Any, timeout_seconds: float
) -> Execution:
    """Accept a run and wait for its end; the ended run. Raises as ``accept_execution`` does."""
    deadline = timezone.now() + timedelta(seconds=timeout_seconds)
    accepted = accept_execution(
        request=ExecutionRequest(
            principal=principal,
            tool=tool,
            version=version,
            input=input_value,
            mode=Execution.Mode.WAIT,
            deadline=deadline,
            trace_id=uuid.uuid4().hex,
        )
    )
    while True:
        execution = Execution.objects.get(id=accepted.execution_id)
        if ExecutionState(execution.state) in TERMINAL_STATES:
            return execution
        if timezone.now() > deadline + OVERDUE_GRACE:
            expire_execution(execution_id=execution.id)
        time.sleep(POLL_SECONDS)
