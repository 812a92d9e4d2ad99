"""``manage.py issue_key ACCOUNT``: a new API key, printed once."""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError
from datetime import timedelta
from typing import Any

from django.utils import timezone

from security import services
from security.management.account_command import AccountCommand
from security.models import Account

MAX_DAYS = 36_500


def parse_days(text: str) -> timedelta:
    """Whole days, 1 to ``MAX_DAYS``."""
    try:
        days = int(text)
    except ValueError:
        days = 0
    if not 1 <= days <= MAX_DAYS:
        raise ArgumentTypeError(f"not a number of days from 1 to {MAX_DAYS}")
    return timedelta(days=days)


class Command(AccountCommand):
    help = "Issue an API key for an account and print it; it is not shown again."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("--name", default="command line", help="What the key is for (default: %(default)s).")
        parser.add_argument(
            "--scope",
            action="append",
            default=[],
            dest="scopes",
            metavar="PATTERN",
            help="Narrow the key to actions, e.g. tools.view or 'tools.*'; may be given several times.",
        )
        parser.add_argument(
            "--network",
            action="append",
            default=[],
            dest="networks",
            metavar="NETWORK",
            help="Take the key from this address or network only; may be given several times.",
        )
        parser.add_argument(
            "--expires-in-days",
            type=parse_days,
            dest="lifetime",
            metavar="N",
            help="When the key ends (default: never).",
        )

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:
        lifetime: timedelta | None = options["lifetime"]
        issued = services.issue_api_key(
            account=account,
            name=options["name"],
            scopes=options["scopes"],
            networks=options["networks"],
            expires_at=timezone.now() + lifetime if lifetime else None,
        )
        self.print_secret(
            secret=issued.secret, title=f"A new API key of {account.username}:", is_quiet=options["quiet"]
        )
