"""What is asked of the database, but for what depends on the time since it was asked last."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection
from django.test.utils import CaptureQueriesContext

LOOKS = ("security_revocationmark", "security_addressrule")
"""The rules of addresses are looked at again after half a second, by whoever comes first."""


@contextmanager
def capture_queries() -> Iterator[list[dict[str, str]]]:
    """The queries of the block, once it has ended."""
    found: list[dict[str, str]] = []
    with CaptureQueriesContext(connection) as queries:
        yield found
    found += [query for query in queries if not any(f'FROM "{table}"' in query["sql"] for table in LOOKS)]
