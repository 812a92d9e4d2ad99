"""``manage.py explain ACCOUNT ACTION RESOURCE``: whether that is allowed, and by which grant of which role."""

from __future__ import annotations

import sys
from argparse import ArgumentParser
from typing import Any, Final

from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError

from protocol.ports import Resource
from security import selectors
from security.domain import policy
from security.domain.policy import Decision, Reason
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

    def handle(self, *_args: Any, **options: Any) -> None:
        try:
            explanation = selectors.explain_access(
                username=options["account"],
                key_prefix=options["key"],
                action=parse_action(options["action"]),
                resource=parse_resource(options["resource"]),
                is_own=options["own"],
            )
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
            f"{explanation.account} {verb} {options['action']} on {options['resource']}: {describe(explanation)}."
        )
        sys.exit(ALLOWED if explanation.is_allowed else NOT_ALLOWED)


def parse_action(text: str) -> str:
    """An action's name, without wildcards."""
    try:
        policy.parse_action_pattern(text)
    except policy.PatternInvalid as error:
        raise CommandError(f"{text} is not an action such as tools.execute.", returncode=BAD_USAGE) from error
    if "*" in text:
        raise CommandError("Ask for one action, without *.", returncode=BAD_USAGE)
    return text


def parse_resource(text: str) -> Resource:
    """``kind:name``, without wildcards."""
    kind, colon, name = text.partition(":")
    if not (kind and colon and name) or "*" in text:
        raise CommandError(f"{text} is not one resource such as tool:text.count_words.", returncode=BAD_USAGE)
    return Resource(kind=kind, name=name)


def describe(explanation: selectors.Explanation) -> str:
    """Why, in words."""
    if not explanation.account.is_active:
        return "the account is inactive"
    api_key = explanation.api_key
    if api_key is not None and explanation.key_state is not None and not explanation.has_active_key:
        return f"the key {api_key.prefix} is {explanation.key_state.value}"
    decision = explanation.decision
    match decision.reason:
        case Reason.NOT_GRANTED:
            roles = ", ".join(explanation.roles)
            return f"no grant of its roles ({roles}) allows that" if roles else "it has no role"
        case Reason.OUT_OF_SCOPE:
            assert api_key is not None  # noqa: S101  # only a key has scopes
            return (
                f"{_describe_rule(decision)}, but the key {api_key.prefix} has the scopes {', '.join(api_key.scopes)}"
            )
        case Reason.GRANTED | Reason.DENIED:
            return _describe_rule(decision)


def _describe_rule(decision: Decision) -> str:
    rule = decision.rule
    assert rule is not None  # noqa: S101  # a decision for one of these reasons has its rule
    verb = "denies" if rule.effect is policy.Effect.DENY else "allows"
    return f"the role {rule.role} {verb} {rule.action_pattern} on {rule.resource_pattern}"
