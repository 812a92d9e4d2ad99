"""``manage.py export_audit``: the audit record as JSON Lines that end with a signed head, to be verified elsewhere."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from protocol.errors import Misconfigured
from security import selectors, services
from security.domain.audit_chain import Head


class Command(BaseCommand):
    help = "Write the audit record as JSON Lines that end with a signed head and verify without this server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=int, default=1, help="The first position; 1 without it.")
        parser.add_argument(
            "--to",
            dest="last",
            type=int,
            help="A position; the export goes on to the first signed head at it or after it. Without it: to the end.",
        )
        parser.add_argument("--output", type=Path, help="A new file, which only you may read; without it stdout.")

    def handle(self, *_: Any, **options: Any) -> None:
        """Sign the chain's end, if it is wanted, and write."""
        try:
            services.check_keys()
        except Misconfigured as error:
            raise CommandError(error.message, returncode=2) from error
        first, last = options["first"], options["last"]
        head = find_head(last)
        if head is None:
            raise CommandError("Nothing that was asked for is sealed and signed yet.", returncode=2)
        if not 1 <= first <= head.position:
            raise CommandError(f"--from is a position from 1 to {head.position}.", returncode=2)
        with open_output(options["output"]) as output:
            for line in selectors.export_chain(first=first, head=head, exported_at=timezone.now()):
                output.write(line)
        self.stderr.write(f"Exported positions {first} to {head.position}, signed by head {head.number}.")


def find_head(last: int | None) -> Head | None:
    """The signed head that an export to this position ends with; the chain's end is signed for it."""
    head = None if last is None else selectors.get_first_head_from(position=last)
    if head is not None:
        return head
    services.sign_chain(interval=timedelta(0))
    return selectors.get_last_head() if last is None else selectors.get_first_head_from(position=last)


@contextmanager
def open_output(path: Path | None) -> Iterator[BinaryIO]:
    """Where to write.

    Raises:
        CommandError: the file is there already, or cannot be made.
    """
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}", returncode=2) from error
    with os.fdopen(descriptor, "wb") as file:
        yield file
