"""``manage.py rotate_keys``: new keys of the ring, and everything sealed anew under them, while the server runs."""

from __future__ import annotations

import time
from argparse import ArgumentParser
from datetime import timedelta
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.utils import timezone

from protocol.errors import Misconfigured
from security import services
from security.domain.key_states import KeyPurpose

WITHOUT_ASKING: Final = (KeyPurpose.AT_REST, KeyPurpose.JWT, KeyPurpose.AUDIT)
"""What is rotated where no purpose is named: nobody has to do anything for it. Clients may have pinned the identity."""
PASS_SECONDS: Final = 5.0
PAUSE_SECONDS: Final = 0.5


class Command(BaseCommand):
    help = "Replace keys of the ring while the server runs; run it again after an interruption, it goes on."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--purpose",
            action="append",
            type=KeyPurpose,
            choices=list(KeyPurpose),
            help="Which key; may be given again. Without it all but the identity, which clients may have pinned.",
        )
        parser.add_argument(
            "--publish-days",
            type=_parse_days,
            default=0.0,
            metavar="DAYS",
            help="Only publish the new keys; the server begins to use them after so many days.",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        purposes = dict.fromkeys(options["purpose"] or WITHOUT_ASKING)
        publish_for = timedelta(days=options["publish_days"])
        try:
            for purpose in purposes:
                self._begin(purpose, publish_for)
            if not options["publish_days"]:
                self._finish()
        except Misconfigured as error:
            raise CommandError(error.message) from error
        except DatabaseError as error:
            raise CommandError(
                "The database does not answer as it should; run the command again when it does, it goes on."
            ) from error

    def _begin(self, purpose: KeyPurpose, publish_for: timedelta) -> None:
        unfinished = [key for key in services.list_unfinished(now=timezone.now()) if key.purpose == purpose.value]
        for key in unfinished:
            self.stdout.write(f"{purpose}: going on with key {key.id}, which is {key.state}")
        if not unfinished:
            key = services.begin_rotation(purpose=purpose, publish_for=publish_for)
            self.stdout.write(
                f"{purpose}: key {key.id} is {key.state}, in use from {key.activates_at:%Y-%m-%d %H:%M:%S}"
            )

    def _finish(self) -> None:
        resealed = 0
        while unfinished := services.list_unfinished(now=timezone.now()):
            done = services.advance_rotations(seconds=PASS_SECONDS)
            resealed += done.resealed
            if done.is_complete and done.unreadable and not done.resealed:
                stuck = ", ".join(key.id for key in unfinished)
                raise CommandError(
                    f"{done.unreadable} values do not open under key {stuck}; the log names each. "
                    "The key stays, and nothing of it is lost."
                )
            if done.is_complete:
                time.sleep(PAUSE_SECONDS)
        self.stdout.write(self.style.SUCCESS(f"Done: the new keys are in use, {resealed} values were sealed anew."))


def _parse_days(text: str) -> float:
    days = float(text)
    if not 0 <= days <= 365:
        raise ValueError
    return days
