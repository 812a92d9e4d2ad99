"""``manage.py verify_audit``: whether the audit record is as it was sealed and signed, and where it is not."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import msgspec
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from protocol.errors import Misconfigured
from security import selectors
from security.domain.audit_chain import Head
from security.selectors import Verification
from security.services import SEALED_WITHIN, check_keys, find_audit_key

PROGRESS_SECONDS = 2.0


class Command(BaseCommand):
    help = (
        "Check the audit record: every event against its seal, every seal against the one before it, every signed"
        " head. Exit code 0: all is as it was; 1: something is not, and what is printed; 2: it could not be checked."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--from", dest="first", type=int, default=1, help="The first position; 1 without it.")
        parser.add_argument("--to", dest="last", type=int, help="The last position; without it where the chain ends.")
        parser.add_argument(
            "--known-head",
            type=Path,
            help="A file whose last line is a signed head that was kept elsewhere, such as an export's.",
        )

    def handle(self, *_: Any, **options: Any) -> None:
        """Check and print what was found."""
        # Without them each head would seem to be signed by a stranger.
        try:
            check_keys()
        except Misconfigured as error:
            raise CommandError(error.message, returncode=2) from error
        first, last = options["first"], options["last"]
        if first < 1 or (last is not None and last < first):
            raise CommandError("Positions begin at 1, and --to is not before --from.", returncode=2)
        end = selectors.get_chain_position()
        if first > end + 1 or (last is not None and last > end):
            raise CommandError(f"The chain has come to position {end}.", returncode=2)
        known_head = None if options["known_head"] is None else read_head(options["known_head"])
        self.started = self.told_at = time.monotonic()
        result = selectors.verify_chain(
            find_key=find_audit_key,
            first=first,
            last=last,
            known_head=known_head,
            report=self._tell_progress,
        )
        if last is None:
            selectors.add_unsealed(result, sealed_before=timezone.now() - SEALED_WITHIN)
        self._print(result)

    def _tell_progress(self, position: int) -> None:
        now = time.monotonic()
        if now - self.told_at >= PROGRESS_SECONDS:
            self.told_at = now
            self.stderr.write(f"at position {position}, {now - self.started:.0f} s")

    def _print(self, result: Verification) -> None:
        for finding in result.findings:
            self.stdout.write(f"{finding.kind.value}: {finding.text}")
        if result.finding_count > len(result.findings):
            self.stdout.write(f"and {result.finding_count - len(result.findings)} more")
        count = max(0, result.last - result.first + 1)
        seconds = time.monotonic() - self.started
        self.stdout.write(f"Checked {count} seals, positions {result.first} to {result.last}, in {seconds:.1f} s.")
        head = result.head
        if head is not None:
            self.stdout.write(
                f"The last signed head is {head.number}, at position {head.position}, of {head.signed_at}, by key"
                f" {head.key_id}: {head.hash}"
            )
        if result.finding_count:
            raise CommandError(f"The audit record is not as it was sealed: {result.finding_count} findings.")
        self.stdout.write("The audit record is as it was sealed.")


def read_head(path: Path) -> Head:
    """The signed head of a file's last line, as exports end with.

    Raises:
        CommandError: it cannot be read, or is none.
    """
    try:
        line = path.read_bytes().splitlines()[-1]
        return msgspec.json.decode(line, type=dict[str, Head])["head"]
    except (OSError, IndexError, KeyError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{path}: its last line is no signed head.", returncode=2) from error
