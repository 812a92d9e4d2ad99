"""``manage.py reset_second_factor ACCOUNT``: the way back in for who has lost phone, passkeys and recovery codes."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from security import services
from security.management.account_command import AccountCommand
from security.models import Account


class Command(AccountCommand):
    help = "Take a person's second factors and recovery codes away; sign-ins by their password end."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="The account's name, e.g. operator.")

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:  # noqa: ARG002  # it has none
        if services.reset_second_factor(account=account, principal=None):
            self.stdout.write(f"{account.username} has no second factor any more.")
        else:
            self.stdout.write(f"{account.username} had no second factor.")
