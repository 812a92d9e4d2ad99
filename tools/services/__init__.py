"""Every write of this app, by what it is about. Edges import from here."""

from __future__ import annotations

from tools.adapters.python import autodiscover as load_tools
from tools.services.acceptance import Accepted, ExecutionRequest, accept_execution
from tools.services.calling import call_tool
from tools.services.expiry import expire_execution, expire_overdue_executions, send_unsent_executions
from tools.services.leases import RENEW_SECONDS, end_lease, renew_lease
from tools.services.pipeline import run_execution
from tools.services.registration import Synchronised, synchronise_tools
from tools.services.retention import purge_executions
from tools.services.switching import disable_tool, enable_tool

__all__ = [
    "RENEW_SECONDS",
    "Accepted",
    "ExecutionRequest",
    "Synchronised",
    "accept_execution",
    "call_tool",
    "disable_tool",
    "enable_tool",
    "end_lease",
    "expire_execution",
    "expire_overdue_executions",
    "load_tools",
    "purge_executions",
    "renew_lease",
    "run_execution",
    "send_unsent_executions",
    "synchronise_tools",
]
