"""Runs for tests that are about something else: accepted, and left to wait in the queue."""

from __future__ import annotations

import uuid
from typing import Any

from security.models import Account
from security.selectors import get_account_principal
from tools import services
from tools.models import Execution
from tools.services import ExecutionRequest


def accept_run(account: Account, tool: str = "text.count_words", **fields: Any) -> Execution:
    """A run that the account asked for; ``fields`` are the request's. The tools are registered already."""
    fields = {
        "version": None,
        "input": {"text": "a b"},
        "mode": Execution.Mode.QUEUE,
        "trace_id": uuid.uuid4().hex,
        **fields,
    }
    request = ExecutionRequest(principal=get_account_principal(account=account), tool=tool, **fields)
    return Execution.objects.get(id=services.accept_execution(request=request).execution_id)
