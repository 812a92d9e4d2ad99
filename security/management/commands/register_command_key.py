"""``manage.py register_command_key ACCOUNT PUBLIC_KEY``: a key with which the account signs commands."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any

from protocol.domain.messages import SecurityLevel
from security import services
from security.management.account_command import AccountCommand
from security.models import Account


class Command(AccountCommand):
    help = "Register an Ed25519 public key with which an account signs its commands at level critical."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument(
            "public_key", help="The key as base64url, PEM or an OpenSSH line; - reads it from standard input."
        )
        parser.add_argument("--label", default="command line", help="Where the key is kept (default: %(default)s).")

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:
        text = options["public_key"]
        row = services.register_command_key(
            account=account, public_key=sys.stdin.read() if text == "-" else text, label=options["label"]
        )
        if options["quiet"]:
            self.stdout.write(row.key_id)
            return
        self.stdout.write(f"{account.username} signs with this key as:\n\n    {row.key_id}\n")
        if account.security_level_max != SecurityLevel.CRITICAL.value:
            self.stdout.write(
                f"Its highest level is {account.security_level_max}: raise it to critical in the console to use the"
                " key."
            )
