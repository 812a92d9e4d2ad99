"""``manage.py address_rules``: what the rules are, what they say of an address, and the way back in."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from protocol.domain.addresses import parse_address
from security import selectors, services
from security.domain.addresses import Pass
from security.models import AddressRule


class Command(BaseCommand):
    help = "List the rules of addresses, ask them about an address, or disable them."

    def add_arguments(self, parser: ArgumentParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--check", metavar="ADDRESS", help="Say whether the rules for everyone let this address in.")
        what.add_argument("--disable", type=int, nargs="+", metavar="ID", help="Let these rules count no more.")
        what.add_argument("--disable-all", action="store_true", help="Let no rule count any more: the way back in.")

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            if options["disable_all"] or options["disable"]:
                ids = None if options["disable_all"] else options["disable"]
                self.stdout.write(f"{services.disable_address_rules(ids=ids)} disabled")
            elif options["check"] is not None:
                self._check(options["check"])
            else:
                self._list()
        except DatabaseError as error:
            raise CommandError(
                "The database does not answer as it should. Start the server once, or run: manage.py migrate"
            ) from error

    def _check(self, text: str) -> None:
        address = parse_address(text)
        if address is None:
            raise CommandError(f"{text} is not an address such as 192.0.2.7.")
        verdict = selectors.read_address_rules().judge_stranger(address)
        match verdict.outcome:
            case Pass.DENIED if verdict.rule is not None:
                self.stdout.write(f"{address} is refused: rule {verdict.rule.id} denies {verdict.rule.network}")
            case Pass.NOT_LISTED:
                self.stdout.write(f"{address} is refused: there are rules that allow, and none has it")
            case _:
                self.stdout.write(f"{address} is let in")

    def _list(self) -> None:
        for rule in AddressRule.objects.select_related("account", "api_key"):
            note = f" ({rule.note})" if rule.note else ""
            self.stdout.write(f"{rule.pk}: {rule}{'' if rule.is_enabled else ', disabled'}{note}")
