"""Plugging commands in: what a handler must look like, and what becomes of it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from protocol.registry import CommandContext, Runs, command, get_command, get_commands


class Arguments(msgspec.Struct, frozen=True):
    n: int = 0


def test_a_function_becomes_a_command_and_stays_a_function() -> None:
    @command("test.double", action="test.run", changes=True)
    def double(context: CommandContext, arguments: Arguments) -> int:
        """Twice as much.

        And no more.
        """
        return 2 * arguments.n

    row = get_command("test.double")
    assert row is not None
    assert (row.name, row.action, row.is_changing, row.summary) == ("test.double", "test.run", True, "Twice as much.")
    assert row.arguments_type is Arguments
    assert row.handler is double
    assert row.runs is Runs.IN_THREAD
    assert get_commands()["test.double"] is row


def test_a_coroutine_runs_as_a_task_and_inline_is_asked_for() -> None:
    @command("test.wait")
    async def wait(context: CommandContext, arguments: Arguments) -> None: ...

    @command("test.now", runs=Runs.INLINE)
    def now(context: CommandContext, arguments: Arguments) -> None: ...

    assert [get_commands()[name].runs for name in ("test.wait", "test.now")] == [Runs.AS_TASK, Runs.INLINE]


def test_a_name_is_taken_once() -> None:
    @command("test.once")
    def first(context: CommandContext, arguments: Arguments) -> None: ...

    def second(context: CommandContext, arguments: Arguments) -> None: ...

    with pytest.raises(TypeError, match=r"test\.once.*first"):
        command("test.once")(second)
    row = get_command("test.once")
    assert row is not None
    assert row.handler is first


def without_arguments(context: CommandContext) -> None: ...
def without_context(arguments: Arguments) -> None: ...
def unannotated(context, arguments) -> None: ...  # type: ignore[no-untyped-def]  # what is tested
def half_annotated(context: CommandContext, arguments) -> None: ...  # type: ignore[no-untyped-def]  # what is tested


@pytest.mark.parametrize("handler", [without_arguments, without_context, unannotated, half_annotated])
def test_a_handler_takes_context_and_arguments_both_annotated(handler: Any) -> None:
    with pytest.raises(TypeError, match=handler.__name__):
        command("test.bad")(handler)
    assert get_command("test.bad") is None


def test_the_table_cannot_be_written() -> None:
    with pytest.raises(TypeError):
        get_commands()["test.mine"] = get_commands()["session.ping"]  # type: ignore[index]  # what is tested


def test_every_installed_apps_commands_are_found() -> None:
    found = {name: row for name, row in get_commands().items() if not row.handler.__module__.startswith("tests")}
    assert set(found) >= {
        "session.ping",
        "session.status",
        "session.close",
        "tools.list",
        "tools.describe",
        "tools.execute",
        "executions.get",
    }
    for name, row in found.items():
        assert row.summary, f"{name} has no docstring"
        assert row.action is not None or name.startswith("session."), f"{name} needs no permission"
        # What is not known is refused, in every command's arguments.
        with pytest.raises(msgspec.ValidationError, match="unknown"):
            msgspec.convert({"no_such_argument": 1}, row.arguments_type)
