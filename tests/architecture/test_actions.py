"""Every action that code asks policy about is registered: those of commands, and those that only services ask for."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from protocol.registry import get_commands
from security.domain.actions import get_actions

ROOT = Path(__file__).parents[2]
APPS = ("protocol", "security", "tools", "mcp_site")
ASKING = {"is_allowed", "require_allowed", "may_ever", "reaches_others", "find_demanded_level"}


@dataclass(frozen=True)
class Parameter:
    """Where a function takes an action."""

    name: str
    position: int | None = None
    """Without ``self``; ``None``: by keyword only."""


@dataclass(frozen=True)
class Asked:
    """A call that hands an action on."""

    where: str
    value: ast.expr
    handed_on: tuple[str, Parameter] | None
    """The function that stands around it and its parameter, where the action is that."""


def list_modules() -> Iterator[tuple[str, ast.Module]]:
    for app in APPS:
        for path in sorted((ROOT / app).rglob("*.py")):
            if "migrations" not in path.parts:
                yield str(path.relative_to(ROOT)), ast.parse(path.read_text())


def list_parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, Parameter]:
    positional = [argument.arg for argument in function.args.args if argument.arg not in {"self", "cls"}]
    return {argument.arg: Parameter(argument.arg) for argument in function.args.kwonlyargs} | {
        name: Parameter(name, position) for position, name in enumerate(positional)
    }


def find_value(call: ast.Call, parameter: Parameter) -> ast.expr | None:
    for keyword in call.keywords:
        if keyword.arg == parameter.name:
            return keyword.value
    if parameter.position is not None and parameter.position < len(call.args):
        return call.args[parameter.position]
    return None


def find_calls(asking: dict[str, Parameter], modules: list[tuple[str, ast.Module]]) -> Iterator[Asked]:
    """Calls of a function that asks, by its name, with what stands for its parameter."""
    for where, module in modules:
        for function in ast.walk(module):
            if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            own = list_parameters(function)
            for call in ast.walk(function):
                if not isinstance(call, ast.Call):
                    continue
                called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
                value = find_value(call, asking[called]) if called in asking else None
                if value is not None:
                    parameter = own.get(value.id) if isinstance(value, ast.Name) else None
                    yield Asked(
                        f"{where}:{call.lineno}", value, None if parameter is None else (function.name, parameter)
                    )


def list_asked() -> dict[str, ast.expr]:
    """Where an action is asked for, and what it is: functions that hand a parameter on ask for what they are given."""
    modules = list(list_modules())
    asking = dict.fromkeys(ASKING, Parameter("action"))
    while True:
        calls = list(find_calls(asking, modules))
        more = dict(call.handed_on for call in calls if call.handed_on is not None)
        if more.items() <= asking.items():
            return {call.where: call.value for call in calls if call.handed_on is None}
        asking |= more


def list_constants() -> dict[str, str]:
    """What is registered where, by the constant's name."""
    found: dict[str, str] = {}
    for _where, module in list_modules():
        for statement in module.body:
            match statement:
                case ast.AnnAssign(target=ast.Name(id=name), value=ast.Call() as made):
                    pass
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call() as made):
                    pass
                case _:
                    continue
            if getattr(made.func, "id", "") == "register_action":
                found[name] = ast.literal_eval(made.args[0])
    return found


def test_each_action_that_is_asked_for_is_registered() -> None:
    asked, constants = list_asked(), list_constants()
    assert len(asked) > 15
    names = {where: getattr(value, "attr", getattr(value, "id", ast.unparse(value))) for where, value in asked.items()}
    # The kernel asks for what the command names; what those are is the next test's.
    rest = {where: name for where, name in names.items() if not where.startswith("protocol/dispatch.py")}
    assert {where: name for where, name in rest.items() if name not in constants} == {}
    assert set(constants.values()) == set(get_actions())


def test_each_command_asks_for_a_registered_action() -> None:
    own = [command for command in get_commands().values() if command.handler.__module__.partition(".")[0] in APPS]
    assert own
    assert {command.action for command in own if command.action} <= set(get_actions())


def test_each_registered_action_is_documented() -> None:
    page = (ROOT / "docs" / "reference" / "permissions.md").read_text()
    assert [name for name in get_actions() if f"| `{name}` |" not in page] == []
