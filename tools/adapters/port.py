"""What an adapter is: the way to run one kind of tool. Each kind is a module beside this one."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from tools.authoring import ToolContext


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One call of one version of a tool. Its input satisfies that version's schema; the adapter need not ask again."""

    entry_point: str
    """As the version's specification has it."""
    tool: str
    version: str
    definition_hash: str
    """Of the definition that the run was accepted with."""
    input: Any = field(repr=False)
    """JSON, as Python's builtins."""


class Adapter(Protocol):
    """Runs one kind of tool, in a worker, in no transaction. The caller bounds the time and checks the output."""

    def run(self, *, invocation: Invocation, context: ToolContext) -> object:
        """The tool's output as JSON (Python's builtins).

        Any exception but these is a defect of the tool, and goes through as it is.

        Raises:
            ToolUnavailable: it cannot be run here; nothing was started.
            InvalidInput: the input does not fit the tool's types after all; nothing was started.
            ExecutionFailed: the tool says that it failed, in words for its caller.
            InvalidOutput: what it returned has no JSON form.
        """
        ...
