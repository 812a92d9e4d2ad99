"""Tools that are Python functions: finding them in the installed apps, and calling them.

Only what ``@tool`` declared in this process is ever called. An entry point that the database holds is compared with the
declaration's, never imported.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import traceback
from dataclasses import dataclass
from typing import Any

from django.apps import AppConfig, apps
from django.utils.module_loading import module_has_submodule

from tools.adapters.port import Invocation
from tools.authoring import Declaration, ToolContext, ToolError, get_declaration, withdraw_unloaded
from tools.domain.signatures import decode_arguments, encode_output
from tools.errors import ExecutionFailed, ToolUnavailable

PACK_MODULE = "mcp_tools"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PackFailure:
    """An installed app whose tools could not be loaded."""

    app_label: str
    module: str
    error: str
    """The exception's class, text and place, for the operator."""


# Of the last discovery in this process, for the system check.
_failures: tuple[PackFailure, ...] = ()


def autodiscover() -> None:
    """Import every installed app's ``mcp_tools.py``. A broken one costs that app's tools and a line in the log only."""
    global _failures
    found = (_load_pack(config) for config in apps.get_app_configs())
    _failures = tuple(failure for failure in found if failure is not None)


def get_pack_failures() -> tuple[PackFailure, ...]:
    """The apps whose tools the last discovery could not load."""
    return _failures


class PythonAdapter:
    """Calls declared functions in this process."""

    def run(self, *, invocation: Invocation, context: ToolContext) -> object:
        """See ``tools.adapters.port.Adapter``."""
        declaration = _get_declaration(invocation)
        arguments = decode_arguments(signature=declaration.signature, value=invocation.input)
        if declaration.signature.context_parameter is not None:
            arguments[declaration.signature.context_parameter] = context
        try:
            output = _call(declaration, arguments)
        except ToolError as error:
            raise ExecutionFailed(error.message) from error
        return encode_output(value=output)


def _call(declaration: Declaration, arguments: dict[str, Any]) -> object:
    if declaration.signature.is_async:
        return asyncio.run(declaration.function(**arguments))
    return declaration.function(**arguments)


def _get_declaration(invocation: Invocation) -> Declaration:
    declaration = get_declaration(name=invocation.tool, version=invocation.version)
    if declaration is None or declaration.specification.entry_point != invocation.entry_point:
        raise ToolUnavailable("The tool's code is not loaded in this worker.")
    if declaration.specification.definition_hash != invocation.definition_hash:
        raise ToolUnavailable("This worker has another definition of the tool; it needs the server's code.")
    return declaration


def _load_pack(config: AppConfig) -> PackFailure | None:
    if config.module is None or not module_has_submodule(config.module, PACK_MODULE):
        return None
    module = f"{config.name}.{PACK_MODULE}"
    try:
        importlib.import_module(module)
    except Exception as error:  # noqa: BLE001  # the edge to other people's code: whatever it raises, the server starts
        withdraw_unloaded()
        failure = PackFailure(app_label=config.label, module=module, error=_describe(error))
        _log.error("the tools of app %s are not available: %s: %s", config.label, module, failure.error)
        return failure
    return None


def _describe(error: Exception) -> str:
    """The exception and its place; of a syntax error the traceback ends in the importer, not in the file."""
    if isinstance(error, SyntaxError):
        return f"{type(error).__name__}: {error.msg} ({error.filename}:{error.lineno})"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith("<frozen")]
    return f"{type(error).__name__}: {error} ({frames[-1].filename}:{frames[-1].lineno})"
