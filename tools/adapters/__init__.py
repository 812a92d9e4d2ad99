"""Adapters run tools: one port (``tools.adapters.port``), one module a kind of tool, found here by name.

A new kind of tool is a module here and a line in ``_ADAPTERS``. How a run is accepted, bounded and recorded is the
services' part.
"""

from __future__ import annotations

from collections.abc import Mapping

from tools.adapters.port import Adapter, Invocation
from tools.adapters.python import PythonAdapter
from tools.errors import ToolUnavailable

__all__ = ["Adapter", "Invocation", "get_adapter"]

_ADAPTERS: Mapping[str, Adapter] = {"python": PythonAdapter()}


def get_adapter(name: str) -> Adapter:
    """The adapter that a specification names.

    Raises:
        ToolUnavailable: this server has no such adapter.
    """
    adapter = _ADAPTERS.get(name)
    if adapter is None:
        raise ToolUnavailable("This server has no adapter of the tool's kind.")
    return adapter
