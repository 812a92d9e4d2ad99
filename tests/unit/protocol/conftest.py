"""What the tests of the message kernel share: a clean command registry and middleware after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from protocol import middleware, registry


@pytest.fixture(autouse=True)
def _keep_commands() -> Iterator[None]:
    """Take away what a test registered."""
    before = dict(registry._commands)
    yield
    registry._commands.clear()
    registry._commands.update(before)


@pytest.fixture
def use_middleware(settings: object) -> Iterator[object]:
    """Set ``MESSAGE_MIDDLEWARE`` for this test."""

    def use(*paths: str) -> None:
        settings.MESSAGE_MIDDLEWARE = list(paths)  # type: ignore[attr-defined]  # pytest-django's wrapper
        middleware.get_middleware.cache_clear()

    yield use
    middleware.get_middleware.cache_clear()
