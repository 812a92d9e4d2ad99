"""``manage.py call TOOL``: run a tool from the command line, through the same pipeline as everybody."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

import msgspec
from django.core.exceptions import ObjectDoesNotExist
from django.core.management.base import BaseCommand, CommandError

from protocol.errors import MCPError
from security import selectors as security_selectors
from tools import services


class Command(BaseCommand):
    help = "Run a tool in a worker and print its output as JSON; needs a running server."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("tool", help="the tool's name, e.g. text.count_words")
        parser.add_argument("--input", default="{}", help="the input as a JSON object (default: {})")
        parser.add_argument("--tool-version", default=None, help="a version other than the current one")
        parser.add_argument("--account", default="operator", help="on whose behalf (default: operator)")
        parser.add_argument("--timeout", type=float, default=30.0, help="how many seconds to wait (default: 30)")

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            input_value = msgspec.json.decode(options["input"], type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise CommandError(f"--input is not a JSON object: {error}") from error
        try:
            account = security_selectors.get_account(username=options["account"])
        except ObjectDoesNotExist:
            raise CommandError(f"There is no account {options['account']!r}.") from None
        try:
            execution = services.call_tool(
                principal=security_selectors.get_account_principal(account=account),
                tool=options["tool"],
                version=options["tool_version"],
                input_value=input_value,
                timeout_seconds=options["timeout"],
            )
        except MCPError as error:
            raise CommandError(f"{error.code}: {error.message}") from error
        self.stderr.write(f"execution {execution.id} {execution.state}")
        if execution.error_json:
            failure = msgspec.json.decode(execution.error_json)
            raise CommandError(f"{failure['code']}: {failure['message']}")
        self.stdout.write(execution.output_json or "null")
