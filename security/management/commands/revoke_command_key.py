"""``manage.py revoke_command_key ACCOUNT KEY_ID``: take no more signatures by a key."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from security import services
from security.management.account_command import AccountCommand
from security.models import Account
from security.selectors import find_command_key


class Command(AccountCommand):
    help = "Revoke a key with which an account signs commands; it stays, to verify what it signed."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("key_id", help="The key's id, or enough of its beginning to tell it from the others.")

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:
        row = find_command_key(account=account, key_id=options["key_id"])
        if row is None:
            raise CommandError(f"{account.username} has no one key whose id begins with {options['key_id']}.")
        is_revoked_now = services.revoke_command_key(command_key=row)
        if not options["quiet"]:
            self.stdout.write(f"{row.key_id} {'is' if is_revoked_now else 'was already'} revoked.")
