"""``manage.py rotate_key ACCOUNT PREFIX``: a key's successor, printed once; the old key ends after an overlap."""

from __future__ import annotations

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from security import selectors, services
from security.management.account_command import AccountCommand
from security.models import Account

MAX_OVERLAP_HOURS = 24 * 365


class Command(AccountCommand):
    help = "Make a successor of an API key, with the same scopes and networks, and print it; the old key ends."

    def add_arguments(self, parser: ArgumentParser) -> None:
        super().add_arguments(parser)
        parser.add_argument("prefix", help="The key's beginning, e.g. mcp_n_rtTWBw.")
        parser.add_argument(
            "--overlap-hours",
            type=float,
            default=services.DEFAULT_OVERLAP.total_seconds() / 3600,
            metavar="N",
            help="How long the old key goes on counting (default: %(default)g).",
        )

    def handle_account(self, account: Account, options: dict[str, Any]) -> None:
        hours: float = options["overlap_hours"]
        if not 0 <= hours <= MAX_OVERLAP_HOURS:
            raise CommandError(f"--overlap-hours: not a number from 0 to {MAX_OVERLAP_HOURS}")
        try:
            api_key = selectors.get_api_key(account=account, prefix=options["prefix"])
        except selectors.KeyNotFound as error:
            raise CommandError(
                f"{account.username} has no key, or more than one, that begins with {options['prefix']}."
            ) from error
        issued = services.rotate_api_key(api_key=api_key, overlap=timedelta(hours=hours))
        self.print_secret(
            secret=issued.secret,
            title=f"The successor of {api_key.prefix}, which ends at {api_key.expires_at:%Y-%m-%d %H:%M} UTC:",
            is_quiet=options["quiet"],
        )
