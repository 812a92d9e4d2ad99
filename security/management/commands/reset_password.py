"""``manage.py reset_password ACCOUNT``: a new password, made and printed once, or taken from standard input."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from security import services
from security.management.account_command import AccountCommand
from security.models import Account


class Command(AccountCommand):
    help = "Give a person's account a new random password and print it; its console sessions end."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--stdin", action="store_true", help="Take the password from standard input, one line.")

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:
        if options["stdin"]:
            self._set_from_stdin(account, is_quiet=options["quiet"])
            return
        password = services.reset_password(account=account)
        self.print_secret(secret=password, title=f"The new password of {account.username}:", is_quiet=options["quiet"])

    def _set_from_stdin(self, account: Account, *, is_quiet: bool) -> None:
        password = sys.stdin.readline().rstrip("\r\n")
        if not password:
            raise CommandError("There is no password on standard input.")
        services.set_password(account=account, password=password)
        if not is_quiet:
            self.stdout.write(f"{account.username} has the new password.")
