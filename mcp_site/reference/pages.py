"""What each generated page says: a function a page, from the table in code that decides."""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from itertools import groupby
from typing import Final

import msgspec

from mcp_site.reference.markdown import Field, list_fields, make_state_diagram, make_table, wrap_paragraph
from mcp_site.reference.rest import make_rest_page
from mcp_site.settings.reading import CLIENT_VARIABLES, list_variables
from mcp_site.settings.variables import Variable
from protocol.domain.messages import MessageType
from protocol.domain.states import EXPECTED, TRANSITIONS, Close, State
from protocol.errors import MCPError, get_error_table
from protocol.registry import Command, get_commands
from security.domain import port_leases
from security.domain.actions import get_actions
from security.domain.audit_actions import COMMON_DATA, AuditAction, get_audit_actions
from security.domain.builtin_roles import BUILTIN_ROLES
from security.domain.conditions import get_condition_kinds
from security.domain.port_leases import LeaseState
from security.domain.resources import get_resource_kinds
from tools.authoring import get_declared_tools
from tools.domain import states as execution_states
from tools.domain.specification import ToolSpecification

MADE = "<!-- Made from the code by `manage.py make_reference`; changes belong there. -->"
CATEGORIES: Final = ("protocol", "security", "context", "tool", "transport", "system")
NOT_PARAGRAPHS: Final = ("#", "|", "```", "<!--")
BUILTIN_TOOLS: Final = "tools.builtin."


def make_settings_page() -> str:
    """Every variable of the environment."""
    variables = list_variables()
    own = [variable for variable in variables if not variable.is_internal]
    return _join(
        "# Settings",
        MADE,
        "The server reads its settings from the environment, once, when it starts. A wrong value stops the start with "
        "one line that names the variable. So does an unknown `MCP_*` name that is nearly a known one; other unknown "
        "`MCP_*` names are a warning. An empty value is the same as none.",
        "A setting is added in one place: as a field of `Environment` in `mcp_site/settings/environment.py` "
        "([how](../how-to/add-a-setting.md)).",
        make_table(("variable", "value", "default", "what it is"), map(_list_variable_cells, own)),
        "*secret*: never logged, and hidden where the settings are printed. `MCP_SECRET_KEY` and `MCP_MASTER_KEY` "
        "are made at the first start and kept in `<MCP_DATA_DIR>/secrets/`; with `DATABASE_URL`, `REDIS_URL` or "
        "`CELERY_BROKER_URL` set they must be given, so that every node has the same.",
        "`make run` sets `MCP_WORKSPACE` to the project's `docs/` where it is not set.",
        "## Set by the server itself",
        make_table(
            ("variable", "value", "default", "what it is"),
            (_list_variable_cells(variable) for variable in variables if variable.is_internal),
        ),
        "## Read by clients",
        f"{_quote(sorted(CLIENT_VARIABLES))}: `examples/agent.py` reads them; the server ignores them.",
    )


def make_errors_page() -> str:
    """Every error code."""
    by_category = groupby(sorted(get_error_table().values(), key=_order_error), key=lambda error: error.category)
    sections = [
        f"## {category}\n\n{make_table(('code', 'HTTP', 'retryable', 'meaning'), map(_list_error_cells, errors))}"
        for category, errors in by_category
    ]
    return _join(
        "# Error codes",
        MADE,
        "`code` is stable and is what programs read; `message` is for people. The shape of an error is in "
        "[the protocol](protocol.md#errors). *retryable* is the code's default: the same message may be sent again as "
        "it is. For a run that was accepted the answer's `retryable` says whether its tool may be run again.",
        "A code is added in one place: as a class in the `errors.py` of its app "
        "([how](../how-to/add-an-error-code.md)).",
        *sections,
    )


def make_commands_page() -> str:
    """Every command of the protocol."""
    commands = sorted(get_commands().values(), key=lambda command: command.name)
    return _join(
        "# Commands",
        MADE,
        "What `payload.command` of a `command` may be, with the types that decode its arguments. An argument that is "
        "not listed, a missing one or one of another type is `protocol.invalid_arguments`. Real exchanges are in "
        "[the protocol](protocol.md#commands).",
        "A command is added in one place: as a function in the `commands.py` of its app "
        "([how](../how-to/add-a-command.md)).",
        make_table(
            ("command", "action", "changes", "what it does"),
            (
                (
                    f"[`{command.name}`](#{_make_anchor(command.name)})",
                    f"`{command.action}`" if command.action else "any principal",
                    "yes" if command.is_changing else "no",
                    _get_summary(command),
                )
                for command in commands
            ),
        ),
        *map(_describe_command, commands),
    )


def make_permissions_page() -> str:
    """What policy decides by: actions, built-in roles, kinds of resources, conditions."""
    commands = sorted(get_commands().values(), key=lambda command: command.name)
    kinds = sorted(get_condition_kinds().values(), key=lambda kind: kind.name)
    return _join(
        "# Permissions",
        MADE,
        "What grants may name. How roles and grants are made is in "
        "[managing accounts, keys and roles](../how-to/manage-accounts-keys-and-roles.md#roles).",
        "## Actions",
        make_table(
            ("action", "what it lets do", "asked for by"),
            (
                (
                    f"`{name}`",
                    summary,
                    _quote(command.name for command in commands if command.action == name) or "the console",
                )
                for name, summary in sorted(get_actions().items())
            ),
        ),
        "Which resource is touched is decided by the service that is called, the same from all doors. `tools.execute` "
        "also needs `tools.view` on the tool: what may not be seen is `tool.not_found`.",
        "## Built-in roles",
        "They come with the server, follow its version and are not changed by hand. They are said in one place, "
        "`security/domain/builtin_roles.py`; each start and each `manage.py migrate` brings the database to it.",
        make_table(
            ("role", "what it may", "allows"),
            (
                (
                    f"`{role.name}`",
                    role.description,
                    "<br>".join(f"`{action}` on `{resource}`" for action, resource in sorted(role.grants)),
                )
                for role in BUILTIN_ROLES
            ),
        ),
        "## Resources",
        "A resource is `kind:name`. `@own` behind a pattern is what the account owns, `@label=…` what bears the label.",
        make_table(
            ("kind", "what it is", "example"),
            (
                (f"`{kind.name}`", kind.summary, f"`{kind.example}`")
                for kind in sorted(get_resource_kinds().values(), key=lambda kind: kind.name)
            ),
        ),
        "## Conditions",
        "A grant's `conditions` are a JSON object of these; each must hold. An allow with an unknown or broken one "
        "never counts, a deny always. An app adds a kind by `security.domain.conditions.register_condition` in its "
        "`AppConfig.ready`.",
        make_table(
            ("condition", "what it is", "example"),
            ((f"`{kind.name}`", kind.summary, f"`{msgspec.json.encode(kind.example).decode()}`") for kind in kinds),
        ),
    )


def make_audit_events_page() -> str:
    """Every action of the audit record."""
    actions = sorted(get_audit_actions().values(), key=lambda action: action.name)
    return _join(
        "# Audit events",
        MADE,
        "What the [audit record](../explanation/audit.md) may say. Every event also has its time, the account (none: "
        "the server itself, or its command line), the key or token that was shown, the outcome, and the trace that "
        "finds it in the log. No event holds a secret, nor the input or output of a run.",
        "An action is added in one place: as an entry of `recorded_actions.py` in its app's `domain/`. Code that "
        "records another action, or to one of these other data, fails.",
        make_table(
            ("action", "done to", "what it is"),
            (
                (f"[`{action.name}`](#{_make_anchor(action.name)})", _show_kinds(action), action.summary)
                for action in actions
            ),
        ),
        "## Data of any event",
        make_table(("field", "what it is"), _list_data(COMMON_DATA)),
        *(
            f"## {action.name}\n\n{make_table(('field of its data', 'what it is'), _list_data(action.data))}"
            if action.data
            else f"## {action.name}\n\nIt has no data of its own."
            for action in actions
        ),
    )


def make_states_page() -> str:
    """The states of connections, runs and port leases, and the close codes."""
    return _join(
        "# States and close codes",
        MADE,
        "## A connection's states",
        make_state_diagram(
            start=State.CONNECTING.value,
            steps=[
                (state.value, target.value, event.value)
                for state, steps in TRANSITIONS.items()
                for event, target in steps.items()
            ],
            ends=[State.CLOSED.value],
        ),
        "A message of a type that the state does not take is `protocol.unexpected_message`, and the state stays. "
        "A `command` before authentication is `security.authentication_required`; one while draining is "
        "`system.unavailable`.",
        make_table(
            ("state", "takes from the client"),
            (
                (f"`{state.value}`", _quote(kind.value for kind in MessageType if kind in EXPECTED[state]) or "nothing")
                for state in State
            ),
        ),
        "The table is `TRANSITIONS` and `EXPECTED` in `protocol/domain/states.py`.",
        "## Close codes",
        make_table(
            ("code", "meaning", "resumable"),
            (
                (str(close.value.code), close.value.meaning, "yes" if close.value.is_resumable else "no")
                for close in sorted(Close, key=lambda close: close.value.code)
            ),
        ),
        "*resumable* is protocol 1.1's rule for the code. This release keeps no session beyond its connection.",
        "## A run's states",
        make_state_diagram(
            start=execution_states.ExecutionState.QUEUED.value,
            steps=[
                (state.value, target.value, "")
                for state in execution_states.ExecutionState
                for target in sorted(
                    execution_states.TRANSITIONS[state], key=list(execution_states.ExecutionState).index
                )
            ],
            ends=[
                state.value for state in execution_states.ExecutionState if state in execution_states.TERMINAL_STATES
            ],
        ),
        "A run ends once: "
        + _quote(state.value for state in execution_states.ExecutionState if state in execution_states.TERMINAL_STATES)
        + " are final. Which of the steps this release takes is in [an execution's way](../explanation/executions.md).",
        "The table is `TRANSITIONS` in `tools/domain/states.py`.",
        "## A port lease's states",
        make_state_diagram(
            start=LeaseState.RESERVED.value,
            steps=[
                (state.value, target.value, event.value)
                for state, steps in port_leases.TRANSITIONS.items()
                for event, target in steps.items()
            ],
            ends=[LeaseState.RELEASED.value],
        ),
        "Nobody else is given the port of a lease that is not `released`. What moves it is in "
        "[leasing ports](../how-to/lease-ports.md#what-becomes-of-a-lease). The table is `TRANSITIONS` in "
        "`security/domain/port_leases.py`.",
    )


def make_tools_page() -> str:
    """The tools that come with the server."""
    tools = sorted(
        (tool for tool in get_declared_tools().values() if tool.entry_point.startswith(BUILTIN_TOOLS)),
        key=lambda tool: tool.reference,
    )
    return _join(
        "# Builtin tools",
        MADE,
        "The tools that come with the server. They are declared like [a tool of your own](../how-to/add-a-tool.md), in "
        "`tools/builtin/`.",
        "The `files.*` tools see the folder `MCP_WORKSPACE` and nothing else: no `..`, no absolute path, no symbolic "
        "link that leads out. Patterns are "
        "[RE2's](https://github.com/google/re2/wiki/Syntax): linear time, no look-around, no back-references.",
        "`http.request` reaches public addresses, and "
        "[what the operator allows](../how-to/let-tools-reach-the-network.md) besides.",
        *map(_describe_tool, tools),
    )


PAGES: Final[Mapping[str, Callable[[], str]]] = {
    "audit-events.md": make_audit_events_page,
    "settings.md": make_settings_page,
    "errors.md": make_errors_page,
    "commands.md": make_commands_page,
    "permissions.md": make_permissions_page,
    "states.md": make_states_page,
    "tools.md": make_tools_page,
    "rest.md": partial(make_rest_page, MADE),
}
"""The generated pages of ``docs/reference/``."""


def _join(*parts: str) -> str:
    return "\n\n".join(part if part.startswith(NOT_PARAGRAPHS) else wrap_paragraph(part) for part in parts) + "\n"


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _make_anchor(heading: str) -> str:
    """The anchor that GitHub gives to a heading that is one name."""
    return heading.replace(".", "").lower()


def _list_variable_cells(variable: Variable) -> tuple[str, ...]:
    value = " ".join(part for part in (variable.type, variable.bounds) if part)
    return (
        f"`{variable.name}`",
        value,
        f"`{variable.default}`" if variable.default else "",
        variable.description + (" *secret*" if variable.is_secret else ""),
    )


def _order_error(error: type[MCPError]) -> tuple[int, str]:
    return CATEGORIES.index(error.category), error.code


def _list_error_cells(error: type[MCPError]) -> tuple[str, ...]:
    retryable = "yes" if error.retryable else "no"
    return f"`{error.code}`", str(error.http_status), retryable, error.get_default_message()


def _show_kinds(action: AuditAction) -> str:
    return ", ".join(f"`{kind}`" for kind in action.kinds) or "whatever was asked for"


def _list_data(data: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(f"`{name}`", meaning) for name, meaning in data.items()]


def _get_summary(command: Command) -> str:
    return command.summary.replace("``", "`")


def _describe_command(command: Command) -> str:
    result = typing.get_type_hints(command.handler)["return"]
    if isinstance(result, type) and issubclass(result, msgspec.Struct):
        shown = _make_field_table(list_fields(msgspec.json.schema(result)), is_input=False)
    else:
        shown = f"See [the protocol](protocol.md#{_make_anchor(command.name)})."
    return _join(
        f"## {command.name}",
        _get_summary(command),
        "**Arguments**",
        _make_field_table(list_fields(msgspec.json.schema(command.arguments_type)), is_input=True),
        "**Result**",
        shown,
    ).rstrip()


def _describe_tool(tool: ToolSpecification) -> str:
    timeout = "the server's default" if tool.timeout_seconds is None else f"{tool.timeout_seconds:g} s"
    return _join(
        f"## {tool.name}",
        tool.description,
        f"Version {tool.version}. Capabilities: {_quote(tool.capabilities) or 'none'}. "
        f"{'Idempotent' if tool.is_idempotent else 'Not idempotent'}. Timeout: {timeout}.",
        "**Input**",
        _make_field_table(list_fields(tool.input_schema), is_input=True),
        "**Output**",
        _make_field_table(list_fields(tool.output_schema), is_input=False),
    ).rstrip()


def _make_field_table(fields: list[Field], *, is_input: bool) -> str:
    if not fields:
        return "Nothing."
    head = ["field", "type", *(["default"] if is_input else []), "what it is"]
    rows = [_list_field_cells(field, is_input=is_input) for field in fields]
    if not any(field.description for field in fields):
        head, rows = head[:-1], [row[:-1] for row in rows]
    return make_table(head, rows)


def _list_field_cells(field: Field, *, is_input: bool) -> list[str]:
    if is_input:
        default = "required" if field.is_required else field.default or "absent"
        return [f"`{field.path}`", field.type, default, field.description]
    shown = field.type if field.is_required else f"{field.type}; may be absent"
    return [f"`{field.path}`", shown, field.description]
