"""This app's commands, one module a subject; the registry finds them here."""

from __future__ import annotations

from security.commands import sessions

__all__ = ["sessions"]
