"""Reading the environment: this module alone looks at ``os.environ``. What there is to read is ``environment``'s."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from mcp_site.errors import BadEnvironment
from mcp_site.settings.environment import Environment
from mcp_site.settings.variables import (
    PREFIX,
    Variable,
    decode_path,
    describe_variables,
    explain,
    name_variable,
    refuse_near_misses,
)

CLIENT_VARIABLES: Final = frozenset({"MCP_URL", "MCP_API_KEY", "MCP_FINGERPRINT", "MCP_SIGNING_KEY"})
"""Read by clients such as ``examples/agent.py``; the server knows and ignores them."""


def list_variables() -> tuple[Variable, ...]:
    """Every variable that the server reads, in the structure's order."""
    return describe_variables(Environment)


def load_environment() -> Environment:
    """The process's environment. Unknown ``MCP_*`` names are warned of on stderr, but not by ``serve``'s children.

    Raises:
        BadEnvironment: a value is wrong, or an unknown name is nearly a known one.
    """
    values = {name: value for name, value in os.environ.items() if value.strip()}
    environment = parse_environment(values)
    if not environment.supervisor_pid:
        for name in find_unknown_names(values):
            sys.stderr.write(f"warning: {name} is not a variable of this server; it is ignored\n")
    return environment


def build_child_environment(*, supervisor_pid: int) -> dict[str, str]:
    """The environment of a child of ``serve``."""
    return {**os.environ, name_variable("supervisor_pid"): str(supervisor_pid)}


def parse_environment(values: Mapping[str, str]) -> Environment:
    """The structure from names and texts; what is absent has its default.

    Raises:
        BadEnvironment: a value is wrong, or an unknown ``MCP_*`` name is nearly a known one.
    """
    variables = {variable.name: variable for variable in list_variables()}
    refuse_near_misses(find_unknown_names(values), known=[*variables, *CLIENT_VARIABLES])
    given: dict[str, Any] = {name: value.strip() for name, value in values.items() if name in variables}
    for name, text in given.items():
        if variables[name].type == "list":
            given[name] = [item.strip() for item in text.split(",") if item.strip()]
    try:
        return msgspec.convert(given, Environment, strict=False, dec_hook=decode_path)
    except msgspec.ValidationError as error:
        raise BadEnvironment(explain(str(error), given, variables)) from None


def find_unknown_names(values: Mapping[str, str]) -> list[str]:
    """``MCP_*`` names that neither the server nor a client reads."""
    known = {variable.name for variable in list_variables()} | CLIENT_VARIABLES
    return sorted(name for name in values if name.startswith(PREFIX) and name not in known)
