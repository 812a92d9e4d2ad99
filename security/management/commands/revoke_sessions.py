"""``manage.py revoke_sessions ACCOUNT``: end all that the account is signed in to."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from security import services
from security.management.account_command import AccountCommand
from security.models import Account


class Command(AccountCommand):
    help = "End an account's connections, its tokens and its sign-ins to the console; its keys still count."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="The account's name, e.g. agent.")

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:  # noqa: ARG002  # it has none
        ended = services.end_sign_ins(account_id=account.id, principal=None, trace_id="")
        self.stdout.write(
            f"{account.username} is signed out: {ended.sessions} connections, {ended.token_families} families of "
            "tokens, and the console."
        )
