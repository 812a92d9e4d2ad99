"""One command's way from its decoded message to its result: resolve, gate, decode, run. Knows no socket."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from django.utils import timezone

from protocol import middleware, ports
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
from protocol.registry import Command, CommandContext, Runs, get_command

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


def decode_arguments(*, command: Command, codec: Codec, raw: msgspec.Raw) -> Any:
    """The command's typed arguments; left out, they are an empty object.

    Raises:
        InvalidArguments: with ``details.path``.
    """
    try:
        if codec.is_null(raw):
            return msgspec.json.decode(_EMPTY_OBJECT, type=command.arguments_type)
        return codec.decode(raw, command.arguments_type)
    except msgspec.ValidationError as error:
        reason, path = describe_field_error(error)
        raise InvalidArguments(reason, details={"path": f"arguments.{path}".rstrip(".")}) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidArguments("The arguments cannot be decoded.", details={"path": "arguments"}) from error


def convert_arguments(*, command: Command, values: Mapping[str, Any], is_text: bool) -> Any:
    """The command's typed arguments out of decoded values; with ``is_text`` numbers and truths may be written as text.

    Raises:
        InvalidArguments: with ``details.path``.
    """
    try:
        return msgspec.convert(values, command.arguments_type, strict=not is_text)
    except msgspec.ValidationError as error:
        reason, path = describe_field_error(error)
        raise InvalidArguments(reason, details={"path": f"arguments.{path}".rstrip(".")}) from error


def may_run_inline(command: Command) -> bool:
    """Whether it can be run at once on the event loop, without a task."""
    return command.runs is Runs.INLINE and not middleware.get_middleware()


def run_inline(command: Command, context: CommandContext, arguments: Any) -> Any:
    """The result of a command that ``may_run_inline``."""
    return command.handler(context, arguments)


async def run(command: Command, context: CommandContext, arguments: Any) -> Any:
    """The result of any command, through the middleware."""
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
    return command.handler(context, arguments)


def translate_failure(error: Exception, *, trace_id: str, command: str) -> MCPError:
    """The error to tell the peer. What nobody expected is logged under its trace id and told as nothing else."""
    if isinstance(error, MCPError):
        return error
    logger.error("Unexpected failure of %s, trace %s", command, trace_id, exc_info=error)
    return InternalError()
