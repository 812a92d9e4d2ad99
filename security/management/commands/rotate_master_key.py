"""``manage.py rotate_master_key``: every key of the ring wrapped by another master key, while the server runs."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from protocol.errors import Misconfigured
from security import services
from security.domain.master_keys import NotUnwrapped


class Command(BaseCommand):
    help = "Wrap all keys by a new master key; run it again after an interruption, it goes on."

    def handle(self, *_args: Any, **_options: Any) -> None:
        try:
            done = services.rotate_master_key()
        except services.NothingToRotate as error:
            raise CommandError(
                "There is no new master key. Give both on every node, the new one first: MCP_MASTER_KEY=NEW,OLD (or a "
                "line each in the file, or printed by the command), restart them, and run this again."
            ) from error
        except Misconfigured as error:
            raise CommandError(error.message) from error
        except NotUnwrapped as error:
            raise CommandError(f"Nothing was changed: no master key that is given opens {error}.") from error
        except (DatabaseError, OSError) as error:
            raise CommandError(
                "The database or the data folder does not answer as it should; run the command again when it does."
            ) from error
        self.stdout.write(self.style.SUCCESS(f"{done.count} keys are wrapped by master key {done.master_key_id}."))
        if done.path is None:
            self.stdout.write("The old master key can be taken away now. Backups of before still need it.")
        else:
            self.stdout.write(f"{done.path} has the new one alone. Backups of before need the old one.")
