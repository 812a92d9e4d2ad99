"""``manage.py explain ACCOUNT ACTION RESOURCE``: whether that is allowed, and by which grant of which role."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from protocol.domain.messages import SecurityLevel
from security import selectors
from security.models import Account

ALLOWED: Final = 0
NOT_ALLOWED: Final = 1
BAD_USAGE: Final = 2


class Command(BaseCommand):
    help = "Say whether an account is allowed an action on a resource, and which grant decides."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("account", help="The account's name, e.g. agent.")
        parser.add_argument("action", help="The action, e.g. tools.execute.")
        parser.add_argument("resource", help="Kind and name, e.g. tool:text.count_words.")
        parser.add_argument("--key", metavar="PREFIX", help="Narrow to the scopes of the account's key that begins so.")
        parser.add_argument("--own", action="store_true", help="The resource is the account's own.")
        parser.add_argument(
            "--label",
            action="append",
            default=[],
            dest="labels",
            metavar="LABEL",
            help="The resource bears this label.",
        )
        parser.add_argument(
            "--from",
            dest="remote_address",
            metavar="ADDRESS",
            help="From where it is asked. Without it, address rules and the key's networks are left out, and no grant "
            "that asks for a network allows anything.",
        )
        parser.add_argument(
            "--level",
            type=SecurityLevel,
            choices=list(SecurityLevel),
            default=SecurityLevel.STANDARD,
            help="Of the connection (default: %(default)s).",
        )

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            question = selectors.make_question(
                action=options["action"],
                resource=options["resource"],
                labels=frozenset(options["labels"]),
                is_own=options["own"],
                remote_address=options["remote_address"],
                security_level=options["level"],
            )
            explanation = selectors.explain_access(
                username=options["account"], key_prefix=options["key"], question=question
            )
        except selectors.QuestionInvalid as error:
            raise CommandError(str(error), returncode=BAD_USAGE) from error
        except Account.DoesNotExist as error:
            raise CommandError(f"There is no account {options['account']}.", returncode=BAD_USAGE) from error
        except selectors.KeyNotFound as error:
            raise CommandError(
                f"{options['account']} has no key, or more than one, that begins with {options['key']}.",
                returncode=BAD_USAGE,
            ) from error
        except DatabaseError as error:
            raise CommandError(
                "The database does not answer as it should. Start the server once, or run: manage.py migrate",
                returncode=BAD_USAGE,
            ) from error
        verb = "may" if explanation.is_allowed else "may not"
        self.stdout.write(
            f"{explanation.account} {verb} {options['action']} on {options['resource']}: {explanation.describe()}."
        )
        sys.exit(ALLOWED if explanation.is_allowed else NOT_ALLOWED)
