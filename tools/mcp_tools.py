"""The builtin tools, as any app's ``mcp_tools.py`` would offer its own: importing their modules declares them."""

from __future__ import annotations

from tools.builtin import files, http_request, text

__all__ = ["files", "http_request", "text"]
