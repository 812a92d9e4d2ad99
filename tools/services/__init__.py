"""Every write of this app, by what it is about. Edges import from here."""

from __future__ import annotations

from tools.adapters.python import autodiscover as load_tools
from tools.services.acceptance import Accepted, ExecutionRequest, Joined, accept_execution, get_execution_id
from tools.services.answers import get_answer
from tools.services.calling import call_tool
from tools.services.cancellation import cancel_execution
from tools.services.expiry import expire_execution, expire_overdue_executions, stop_waiting
from tools.services.marking import MAX_LABELS, mark_tool
from tools.services.pipeline import run_execution
from tools.services.recovery import recover_lost_executions, remove_orphaned_scratch
from tools.services.registration import Synchronised, synchronise_tools
from tools.services.retention import forget_idempotency_keys, purge_executions
from tools.services.retrying import retry_execution
from tools.services.sending import send_waiting_executions
from tools.services.supervision import (
    RENEWALS_PER_LEASE,
    choose_measures,
    end_lease,
    get_lease_seconds,
    recover_unheld_executions,
    renew_lease,
    take_lease,
)
from tools.services.switching import disable_tool, enable_tool

__all__ = [
    "MAX_LABELS",
    "RENEWALS_PER_LEASE",
    "Accepted",
    "ExecutionRequest",
    "Joined",
    "Synchronised",
    "accept_execution",
    "call_tool",
    "cancel_execution",
    "choose_measures",
    "disable_tool",
    "enable_tool",
    "end_lease",
    "expire_execution",
    "expire_overdue_executions",
    "forget_idempotency_keys",
    "get_answer",
    "get_execution_id",
    "get_lease_seconds",
    "load_tools",
    "mark_tool",
    "purge_executions",
    "recover_lost_executions",
    "recover_unheld_executions",
    "remove_orphaned_scratch",
    "renew_lease",
    "retry_execution",
    "run_execution",
    "send_waiting_executions",
    "stop_waiting",
    "synchronise_tools",
    "take_lease",
]
