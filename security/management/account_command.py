"""What the commands on one account share: finding it, and saying in one line what is wrong."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from security.models import Account
from security.selectors import get_account


class AccountCommand(BaseCommand):
    """A command whose first argument names an account."""

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="The account's name, e.g. agent.")
        parser.add_argument("--quiet", action="store_true", help="Print the secret and nothing else.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            account = get_account(username=options["account"])
            self.handle_account(account, options)
        except Account.DoesNotExist as error:
            raise CommandError(f"There is no account {options['account']}.") from error
        except ValidationError as error:
            raise CommandError(" ".join(error.messages)) from error
        except DatabaseError as error:
            raise CommandError(
                "The database does not answer as it should. Start the server once, or run: manage.py migrate"
            ) from error

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:
        """Do it for this account."""
        raise NotImplementedError

    def print_secret(self, *, secret: str, title: str, is_quiet: bool) -> None:
        """The secret on a line of its own; unless quiet, between what it is and that it is not shown again."""
        if is_quiet:
            self.stdout.write(secret)
            return
        self.stdout.write(f"{title}\n\n    {secret}\n\nKeep it now: it is stored nowhere and will not be shown again.")
