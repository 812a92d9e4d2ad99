"""Commands that fail while they hold secrets: an app that only tests install, by ``MCP_APPS``."""

from __future__ import annotations

import logging

from django.db import connection
from msgspec import Struct

from protocol.registry import CommandContext, command

logger = logging.getLogger(__name__)


class LeakyArguments(Struct, frozen=True, forbid_unknown_fields=True):
    secret: str
    """Of no form that anybody knows."""
    token: str = ""
    """An API key, a token of ours, or a URL with a password in it."""


@command("leaky.hold")
def hold(context: CommandContext, arguments: LeakyArguments) -> None:
    """Fail with a secret at hand."""
    logger.debug("fails with %r", context)
    raise RuntimeError("nobody expected it")


@command("leaky.say")
def say(context: CommandContext, arguments: LeakyArguments) -> None:
    """Fail with a secret in the exception, as other libraries do."""
    raise RuntimeError(f"cannot reach {arguments.token} with password={arguments.secret!r}")


@command("leaky.ask")
def ask(context: CommandContext, arguments: LeakyArguments) -> None:
    """Have the database fail."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT %s FROM nowhere", [arguments.secret])
