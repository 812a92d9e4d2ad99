"""Many threads that do one thing at the same moment, each with its own database connection."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from django.db import connections

T = TypeVar("T")


def run_at_once(function: Callable[[], T], *, times: int) -> list[T]:
    """What the function gave each time, called in so many threads that begin together."""
    barrier = threading.Barrier(times)

    def call() -> T:
        try:
            barrier.wait(10)
            return function()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(max_workers=times) as executor:
        return [future.result() for future in [executor.submit(call) for _ in range(times)]]
