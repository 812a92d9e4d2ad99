"""One command's way from its decoded message to its result: resolve, gate, decode, run. Knows no socket."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from django.utils import timezone

from protocol import middleware, ports
from protocol.acting import acting
from protocol.database_threads import get_database_threads
from protocol.domain.codec import Codec
from protocol.domain.messages import describe_field_error
from protocol.errors import (
    AccessDenied,
    FeatureNotAgreed,
    InternalError,
    InvalidArguments,
    MCPError,
    SystemTimeout,
    UnknownCommand,
)
from protocol.evidence import keep_evidence
from protocol.registry import Command, CommandContext, Runs, get_command

T = TypeVar("T")

logger = logging.getLogger(__name__)

_EMPTY_OBJECT = msgspec.Raw(b"{}")


def resolve(*, name: str, principal: ports.Principal) -> Command:
    """The command of that name, if the principal may ever call it.

    Raises:
        UnknownCommand: there is none.
        AccessDenied: no grant of the principal's ever allows its action.
    """
    command = get_command(name)
    if command is None:
        raise UnknownCommand(f"There is no command {name[:100]!r}.", details={"command": name[:100]})
    if command.action is not None and not ports.get_authorizer().may_ever(principal=principal, action=command.action):
        raise AccessDenied(details={"action": command.action})
    return command


def resolve_stateless(*, name: str, principal: ports.Principal) -> Command:
    """As ``resolve``, for a caller without a session.

    Raises:
        FeatureNotAgreed: the command needs one.
    """
    command = resolve(name=name, principal=principal)
    if command.needs_session:
        raise FeatureNotAgreed("This command needs a session; connect by WebSocket.", details={"command": name})
    return command


async def count_command(*, principal: ports.Principal, command: str) -> None:
    """Count a command of this name against the principal's limits; it waits for a moment at most.

    Raises:
        RateLimited: one too many.
    """
    limiter = ports.get_limiter()
    if not limiter.try_take(principal=principal, command=command):
        await limiter.take(principal=principal, command=command)


def decode_arguments(*, command: Command, codec: Codec, raw: msgspec.Raw) -> Any:
    """The command's typed arguments; left out, they are an empty object.

    Raises:
        InvalidArguments: with ``details.path``.
    """
    try:
        if codec.is_null(raw):
            return msgspec.json.decode(_EMPTY_OBJECT, type=command.arguments_type)
        return _refuse_nul(codec.decode(raw, command.arguments_type))
    except msgspec.ValidationError as error:
        raise _describe_wrong(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArguments("The arguments cannot be decoded.", details={"path": "arguments"}) from error


def convert_values(*, values: Mapping[str, Any], target: type[T]) -> T:
    """Decoded JSON as typed arguments.

    Raises:
        InvalidArguments: with ``details.path``.
    """
    try:
        return _refuse_nul(msgspec.convert(values, target))
    except msgspec.ValidationError as error:
        raise _describe_wrong(error) from error


def convert_text(*, values: Mapping[str, Any], target: type[T]) -> T:
    """The values of a query as typed arguments: numbers and truths are written as text there.

    Raises:
        InvalidArguments: with ``details.path``.
    """
    plain = _find_plain_names(target)  # type: ignore[arg-type]  # mypy holds a generic class to be unhashable
    return convert_values(
        values={name: _read_plain(value) if name in plain else value for name, value in values.items()}, target=target
    )


@lru_cache(maxsize=256)
def _find_plain_names(target: type) -> frozenset[str]:
    """The fields that are numbers or truths."""
    kinds = (msgspec.inspect.IntType, msgspec.inspect.FloatType, msgspec.inspect.BoolType)
    return frozenset(name for name, options in list_field_kinds(target) if any(isinstance(o, kinds) for o in options))


def list_field_kinds(target: type) -> list[tuple[str, tuple[msgspec.inspect.Type, ...]]]:
    """A structure's fields with what each may be, without what is only said about it."""
    kinds = []
    for field in msgspec.structs.fields(target):
        kind = msgspec.inspect.type_info(field.type)
        if isinstance(kind, msgspec.inspect.Metadata):
            kind = kind.type
        options = kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,)
        kinds.append((field.name, tuple(o.type if isinstance(o, msgspec.inspect.Metadata) else o for o in options)))
    return kinds


def _read_plain(text: Any) -> Any:
    """The number or truth that the text writes, as JSON has it; any other text as it is, to be refused."""
    try:
        return msgspec.json.decode(text, type=bool | float | int)
    except (msgspec.DecodeError, TypeError):
        return text


def _refuse_nul(arguments: T) -> T:
    """The arguments, if no text of them holds NUL, which PostgreSQL has no place for.

    A tool's input or a context's data may: they are stored as JSON, which writes it otherwise.

    Raises:
        InvalidArguments: with ``details.path``.
    """
    for name in getattr(arguments, "__struct_fields__", ()):
        value = getattr(arguments, name)
        if type(value) is str and "\0" in value:
            raise InvalidArguments("This holds a NUL character.", details={"path": f"arguments.{name}"})
    return arguments


def _describe_wrong(error: msgspec.ValidationError) -> InvalidArguments:
    reason, path = describe_field_error(error)
    return InvalidArguments(reason, details={"path": f"arguments.{path}".rstrip(".")})


def may_run_inline(command: Command) -> bool:
    """Whether it can be run at once on the event loop, without a task."""
    return command.runs is Runs.INLINE and not middleware.get_middleware()


def run_inline(command: Command, context: CommandContext, arguments: Any) -> Any:
    """The result of a command that ``may_run_inline``."""
    if context.evidence:
        with keep_evidence(context.evidence):
            return command.handler(context, arguments)
    return command.handler(context, arguments)


async def run(command: Command, context: CommandContext, arguments: Any) -> Any:
    """The result of any command, through the middleware."""
    if context.evidence:
        with keep_evidence(context.evidence):
            return await middleware.wrap(_run_handler)(command, context, arguments)
    return await middleware.wrap(_run_handler)(command, context, arguments)


async def _run_handler(command: Command, context: CommandContext, arguments: Any) -> Any:
    if command.runs is Runs.INLINE:
        return command.handler(context, arguments)
    if command.runs is Runs.AS_TASK:
        return await command.handler(context, arguments)
    return await get_database_threads().run(_call_before_deadline, command, context, arguments)


def _call_before_deadline(command: Command, context: CommandContext, arguments: Any) -> Any:
    # Checked once the thread is there: nothing is begun for a caller who no longer waits; what is begun is finished.
    if timezone.now() >= context.deadline:
        raise SystemTimeout("The command's deadline passed before it was begun.")
    with acting(find_principal=lambda: context.principal, trace_id=context.trace_id):
        return command.handler(context, arguments)


def translate_failure(error: Exception, *, trace_id: str, command: str) -> MCPError:
    """The error to tell the peer. What nobody expected is logged under its trace id and told as nothing else."""
    if isinstance(error, MCPError):
        return error
    logger.error("Unexpected failure of %s, trace %s", command, trace_id, exc_info=error)
    return InternalError()
