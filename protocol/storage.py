"""Whether the database does its part: read from, and written to."""

from __future__ import annotations

from django.utils import timezone

from protocol.models import WriteCheck


def check_readable() -> None:
    """A real read: ``SELECT 1`` would not touch SQLite's file.

    Raises:
        DatabaseError: the database does not answer.
    """
    WriteCheck.objects.first()


def check_writable() -> None:
    """A real write, committed.

    Raises:
        DatabaseError: the database takes no writes: full, read-only, locked or gone.
    """
    WriteCheck.objects.update_or_create(id=WriteCheck.ONLY_ID, defaults={"written_at": timezone.now()})
