"""The console's pages of tools, runs and workers.

Edges: they parse, call a service or selector and render. A tool's definition is its code's and a run is its worker's,
so an operator changes one thing here: whether a tool may be run. Each module registers its pages when it is imported.
"""

from __future__ import annotations

from tools.admin.executions import ExecutionAdmin
from tools.admin.tools import ToolAdmin
from tools.admin.workers import WorkerLeaseAdmin

__all__ = ["ExecutionAdmin", "ToolAdmin", "WorkerLeaseAdmin"]
