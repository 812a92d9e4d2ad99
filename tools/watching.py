"""Watching runs from an event loop: who waits for one to change or to end, without a session that is told.

The database is asked, for all that are watched in one query, in one hop to a database thread; nobody's wake-up is
needed, so nothing is missed while the broker is away. One board an event loop; it rests while nothing is watched.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final
from weakref import WeakKeyDictionary

from protocol.database_threads import get_database_threads
from protocol.domain.messages import ErrorPayload, ResponsePayload
from protocol.errors import MCPError, Overloaded
from tools import selectors, services
from tools.selectors import Sighting

logger = logging.getLogger(__name__)

EAGER_SECONDS: Final = 0.05
"""Between two looks, as long as something was begun or has changed a moment ago."""
CALM_SECONDS: Final = 0.25
EAGER_FOR_SECONDS: Final = 2.0
MAX_WATCHES: Final = 500
"""In one process; each is a waiting request."""


class Watch:
    """One watcher of one run."""

    def __init__(self, execution_id: uuid.UUID) -> None:
        self.execution_id = execution_id
        self.seen: Sighting | None = None
        """What the last look found; ``None``: there was none yet, or there is no such run any more."""
        self._news = asyncio.Event()

    async def wait_for_news(self, *, seconds: float) -> bool:
        """Wait until the run is not what the last call left; ``False``: it is, after so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._news.wait()
        is_news = self._news.is_set()
        self._news.clear()
        return is_news

    async def wait_for_end(self, *, seconds: float) -> bool:
        """Wait until the run has ended; ``False``: it has not, after so many seconds."""
        ends_at = time.monotonic() + seconds
        while self.seen is None or not self.seen.is_over:
            remaining = ends_at - time.monotonic()
            if remaining <= 0:
                return False
            await self.wait_for_news(seconds=remaining)
        return True

    def take(self, sighting: Sighting | None) -> bool:
        """What a look found; whether it is another than before."""
        if sighting == self.seen:
            return False
        self.seen = sighting
        self._news.set()
        return True


class Board:
    """All watches of one event loop."""

    def __init__(self) -> None:
        self._watches: set[Watch] = set()
        self._task: asyncio.Task[None] | None = None
        self._changed_at = 0.0

    @asynccontextmanager
    async def watch(self, execution_id: uuid.UUID) -> AsyncIterator[Watch]:
        """Watch the run within the block.

        Raises:
            Overloaded: too many are watched already.
        """
        self.check_room()
        watch = Watch(execution_id)
        self._watches.add(watch)
        self._changed_at = time.monotonic()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._look_on())
        try:
            yield watch
        finally:
            self._watches.discard(watch)

    def check_room(self) -> None:
        """
        Raises:
            Overloaded: too many are watched already.
        """
        if len(self._watches) >= MAX_WATCHES:
            raise Overloaded("Too many runs are watched; try again later.", retry_after_ms=1000)

    async def _look_on(self) -> None:
        while self._watches:
            try:
                await self._look()
            except MCPError as error:
                logger.warning("Watched runs cannot be read (%s); trying again.", error.code)
            except Exception:
                # The edge of a task that others wait for.
                logger.exception("Watched runs cannot be read; trying again.")
            is_eager = time.monotonic() - self._changed_at < EAGER_FOR_SECONDS
            await asyncio.sleep(EAGER_SECONDS if is_eager else CALM_SECONDS)

    async def _look(self) -> None:
        watches = set(self._watches)
        found = await get_database_threads().run(
            selectors.find_sightings, execution_ids={watch.execution_id for watch in watches}
        )
        for watch in watches:
            if watch.take(found.get(watch.execution_id)):
                self._changed_at = time.monotonic()


async def wait_for_answer(
    seconds: float, *, execution_id: uuid.UUID, is_duplicate: bool = False
) -> ResponsePayload | ErrorPayload | None:
    """The run's terminal answer, once it is there; ``None``: it is not, after so many seconds."""
    async with get_board().watch(execution_id) as watch:
        if not await watch.wait_for_end(seconds=seconds):
            return None
    return await get_database_threads().run(services.get_answer, execution_id=execution_id, is_duplicate=is_duplicate)


_boards: WeakKeyDictionary[asyncio.AbstractEventLoop, Board] = WeakKeyDictionary()


def get_board() -> Board:
    """The running loop's board."""
    return _boards.setdefault(asyncio.get_running_loop(), Board())
