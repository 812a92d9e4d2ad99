"""``MESSAGE_MIDDLEWARE``: what others put around every command, as Django's middleware is put around a request.

A middleware is a callable that takes the next step and returns an async step; the list's first entry is the
outermost. The fixed steps (authentication, authorization, limits, decoding) come before and cannot be removed by a
setting.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from protocol.registry import Command, CommandContext

Step = Callable[[Command, CommandContext, Any], Awaitable[Any]]
"""Takes the command, its context and its typed arguments; gives its result."""
Middleware = Callable[[Step], Step]


@lru_cache(maxsize=1)
def get_middleware() -> tuple[Middleware, ...]:
    """The configured middleware, outermost first.

    Raises:
        ImproperlyConfigured: an entry cannot be imported or is not callable.
    """
    loaded = []
    for path in settings.MESSAGE_MIDDLEWARE:
        try:
            middleware = import_string(path)
        except ImportError as error:
            raise ImproperlyConfigured(f"MESSAGE_MIDDLEWARE: {path!r} cannot be imported: {error}") from error
        if not callable(middleware):
            raise ImproperlyConfigured(f"MESSAGE_MIDDLEWARE: {path!r} is not callable")
        loaded.append(middleware)
    return tuple(loaded)


def wrap(step: Step) -> Step:
    """``step`` inside all configured middleware."""
    for middleware in reversed(get_middleware()):
        step = middleware(step)
    return step
