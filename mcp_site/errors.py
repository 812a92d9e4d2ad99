"""Why a command of this project does not start: one line for the person who started it, and an exit code.

Errors that a peer is told are ``MCPError`` and do not belong here.
"""

from __future__ import annotations

from typing import ClassVar


class StartRefused(Exception):
    """The text is one line that says what is wrong and what to do."""

    exit_code: ClassVar[int] = 1


class BadEnvironment(StartRefused):
    """A variable of the environment does not allow a start; the text names it."""

    exit_code = 2
