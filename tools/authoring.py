"""The tool authors' API: all that a tool needs, and all that it may import from this project.

    from tools.authoring import tool

    @tool
    def shout(text: str) -> str:
        \"\"\"Say it louder.\"\"\"
        return text.upper() + "!"

In the ``mcp_tools.py`` of any installed app this is the tool ``<app label>.shout``. The type hints make its schemas,
the docstring its description. It runs in a worker process: it may block, and it may use the ORM.

What belongs here is what authors see. Reading signatures is ``tools.domain.signatures``, finding and calling the
functions ``tools.adapters.python``.
"""

from __future__ import annotations

import inspect
import sys
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar, overload

from django.apps import apps

from protocol.domain.messages import SecurityLevel
from tools.domain.signatures import Signature, read_signature
from tools.domain.specification import ToolSpecification, make_reference
from tools.errors import RegistrationInvalid

__all__ = ["Progress", "ToolContext", "ToolError", "tool"]

MAX_ERROR_CHARACTERS = 1_000
MAX_PROGRESS_MESSAGE_CHARACTERS = 500
MAX_CHUNK_CHARACTERS = 16_384
MAX_OUTPUT_CHARACTERS = 1_048_576

_FunctionT = TypeVar("_FunctionT", bound=Callable[..., Any])


class ToolError(Exception):
    """An expected failure, raised by a tool: its caller sees the message (code ``tool.execution_failed``).

    Any other exception is a defect of the tool: it is logged, and the caller sees only its class and a trace id.
    """

    def __init__(self, message: str) -> None:
        """``message`` says what the caller can do about it; cut at 1,000 characters."""
        super().__init__(message[:MAX_ERROR_CHARACTERS])

    @property
    def message(self) -> str:
        return str(self.args[0])


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One report of a running tool. What is ``None`` is not reported by it."""

    fraction: float | None = None
    """From 0 to 1."""
    message: str | None = None
    output_chunk: str | None = None


class ToolContext:
    """What a run may know of itself. A parameter annotated so gets it, and is not part of the tool's input."""

    def __init__(
        self,
        *,
        execution_id: uuid.UUID,
        attempt: int,
        deadline: datetime | None,
        scratch: Path,
        workspace: Path | None,
        report: Callable[[Progress], None],
        allowed_networks: Sequence[IPv4Network | IPv6Network] = (),
        max_output_size_bytes: int = 1_048_576,
        port: int | None = None,
    ) -> None:
        self.execution_id = execution_id
        self.attempt = attempt
        """1 for the first; above, an earlier attempt was lost or failed."""
        self.deadline = deadline
        """When the run is ended (UTC); ``None``: never."""
        self.scratch = scratch
        """A private, empty folder, removed after the run."""
        self.allowed_networks = tuple(allowed_networks)
        """Networks beyond the public Internet that the operator lets tools connect to."""
        self.max_output_size_bytes = max_output_size_bytes
        """The largest output, as JSON, that the server takes."""
        self._workspace = workspace
        self._port = port
        self._report = report
        self._remaining_output_characters = MAX_OUTPUT_CHARACTERS
        self._is_output_full = False

    @property
    def workspace(self) -> Path:
        """The folder that the operator opened to tools. A tool must keep to it: see ``tools.builtin.workspace``.

        Raises:
            ToolError: none is configured.
        """
        if self._workspace is None:
            raise ToolError("This server has no workspace: its operator opens a folder to tools by MCP_WORKSPACE.")
        return self._workspace

    @property
    def port(self) -> int:
        """A port of this machine that is the run's own while it lasts, for TCP and UDP; it was free when it was leased.

        Raises:
            ToolError: the tool did not ask for one: it says so by ``@tool(needs_port=True)``.
        """
        if self._port is None:
            raise ToolError("The tool has no port: its author asks for one by @tool(needs_port=True).")
        return self._port

    def progress(self, fraction: float | None = None, message: str | None = None) -> None:
        """Tell how far the run is. Not for every item of thousands; the message is cut at 500 characters.

        Raises:
            ValueError: ``fraction`` is not within 0 and 1.
        """
        if fraction is not None and not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be within 0 and 1, not {fraction}")
        bounded = None if message is None else message[:MAX_PROGRESS_MESSAGE_CHARACTERS]
        self._report(Progress(fraction=fraction, message=bounded))

    def emit_output(self, chunk: str) -> None:
        """Stream a piece of output while the tool runs; its return value is still the result.

        A long chunk goes out in parts. Beyond 1,048,576 characters in all, one note says that the rest is left out.
        """
        if self._is_output_full:
            return
        taken = chunk[: self._remaining_output_characters]
        self._remaining_output_characters -= len(taken)
        for start in range(0, len(taken), MAX_CHUNK_CHARACTERS):
            self._report(Progress(output_chunk=taken[start : start + MAX_CHUNK_CHARACTERS]))
        if len(taken) < len(chunk):
            self._is_output_full = True
            self._report(Progress(output_chunk=f"\n[output beyond {MAX_OUTPUT_CHARACTERS} characters is left out]\n"))


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """A decorated function, with what is known of it as a tool. For the adapter; authors have no use for it."""

    specification: ToolSpecification
    function: Callable[..., Any]
    signature: Signature


# Filled while modules are imported, as Django's app registry is; nothing of a run is kept here.
_declarations: dict[str, Declaration] = {}


@overload
def tool(function: _FunctionT, /) -> _FunctionT: ...


@overload
def tool(
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    capabilities: Sequence[str] = (),
    idempotent: bool = False,
    timeout_seconds: float | None = None,
    minimum_level: str | None = None,
    needs_port: bool = False,
) -> Callable[[_FunctionT], _FunctionT]: ...


def tool(
    function: _FunctionT | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1.0.0",
    description: str | None = None,
    capabilities: Sequence[str] = (),
    idempotent: bool = False,
    timeout_seconds: float | None = None,
    minimum_level: str | None = None,
    needs_port: bool = False,
) -> _FunctionT | Callable[[_FunctionT], _FunctionT]:
    """Make a function a tool; ``async def`` may be one too. It stays a function, to be called and tested as one.

    Args:
        name: Dotted lower case; by default the app's label, a dot and the function's name.
        version: ``MAJOR.MINOR.PATCH``. Raise it with every change that callers can see: a version is registered once.
        description: What agents choose by; by default the docstring's first paragraph.
        capabilities: What the tool can do, in names of the same form, such as ``text.analysis``.
        idempotent: Running it twice with the same input does no harm, so a lost run may be started again by itself.
        timeout_seconds: When a run is ended; by default the server's setting.
        minimum_level: The security level (``standard``, ``high``, ``critical``) below which no connection may run it.
        needs_port: Each run gets a port of its machine, ``ToolContext.port``, and gives it back when it ends.

    Raises:
        RegistrationInvalid: at import, with file, line, function and what to do.
    """

    def declare(function: _FunctionT) -> _FunctionT:
        try:
            _declare(
                function,
                name=name,
                version=version,
                description=description,
                capabilities=capabilities,
                idempotent=idempotent,
                timeout_seconds=timeout_seconds,
                minimum_level=minimum_level,
                needs_port=needs_port,
            )
        except RegistrationInvalid as error:
            raise RegistrationInvalid(f"{_locate(function)}: {error.message}", details=error.details) from error
        return function

    return declare if function is None else declare(function)


def get_declared_tools() -> Mapping[str, ToolSpecification]:
    """The specification of every tool that was declared in this process, by ``name@version``."""
    return MappingProxyType({reference: found.specification for reference, found in _declarations.items()})


def get_declaration(*, name: str, version: str) -> Declaration | None:
    """The declared tool of that name and version; ``None``: this process has none."""
    return _declarations.get(make_reference(name=name, version=version))


def withdraw_unloaded() -> None:
    """Forget the tools of modules whose import failed halfway: an app's tools are all there or none is."""
    for reference, declaration in list(_declarations.items()):
        if declaration.function.__module__ not in sys.modules:
            del _declarations[reference]


def _declare(
    function: Callable[..., Any],
    *,
    name: str | None,
    version: str,
    description: str | None,
    capabilities: Sequence[str],
    idempotent: bool,
    timeout_seconds: float | None,
    minimum_level: str | None,
    needs_port: bool,
) -> None:
    if not inspect.isfunction(function):
        raise RegistrationInvalid("only a function that 'def' makes can be a tool; wrap this in one")
    if isinstance(capabilities, str):
        raise RegistrationInvalid(f"capabilities must be a list: write capabilities=[{capabilities!r}]")
    signature = read_signature(function=function, context_type=ToolContext)
    described = description or signature.summary
    if not described:
        raise RegistrationInvalid("agents choose a tool by its description; write a docstring, or pass description=")
    specification = ToolSpecification(
        name=name or f"{_get_app_label(function.__module__)}.{function.__name__}",
        version=version,
        description=described,
        input_schema=signature.input_schema,
        output_schema=signature.output_schema,
        capabilities=tuple(capabilities),
        is_idempotent=idempotent,
        timeout_seconds=None if timeout_seconds is None else float(timeout_seconds),
        minimum_level=_read_level(minimum_level),
        adapter="python",
        entry_point=f"{function.__module__}:{function.__qualname__}",
        needs_port=needs_port,
    )
    taken = _declarations.get(specification.reference)
    if taken is not None:
        raise RegistrationInvalid(
            f"{specification.reference} is {_locate(taken.function)} already; choose another name, or raise the version"
        )
    _declarations[specification.reference] = Declaration(
        specification=specification, function=function, signature=signature
    )


def _read_level(text: str | None) -> SecurityLevel | None:
    if text is None:
        return None
    try:
        return SecurityLevel(text)
    except ValueError as error:
        levels = ", ".join(level.value for level in SecurityLevel)
        raise RegistrationInvalid(f"minimum_level must be one of {levels}, not {text!r}") from error


def _get_app_label(module: str) -> str:
    """The label of the app that holds the module; without Django's set-up, the name of the module's package."""
    config = apps.get_containing_app_config(module) if apps.apps_ready else None
    if config is not None:
        return config.label
    package = module.rpartition(".")[0] or module
    return package.rpartition(".")[2]


def _locate(function: object) -> str:
    code = getattr(function, "__code__", None)
    name = getattr(function, "__qualname__", repr(function))
    return f"{name}()" if code is None else f"{code.co_filename}:{code.co_firstlineno}: {name}()"
