"""`manage.py serve`: runs everything under one supervisor, or one part alone in the foreground."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from mcp_site.serving.parent import end_with_parent
from mcp_site.serving.parts import EVERYTHING, MODULES, PARTS_WITHOUT_BROKER, PartOptions, get_part
from mcp_site.serving.preflight import check_broker_runs, check_master_key


class Command(BaseCommand):
    """Parses and dispatches; what is done is in ``mcp_site.serving``."""

    help = "Runs the product: web, worker and scheduler, with an embedded broker unless REDIS_URL names one."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parts = [name for name in MODULES if name != EVERYTHING]
        parser.add_argument(
            "part", nargs="?", choices=parts, help="run this part alone (prepare: migrate, accounts, tools; then end)"
        )
        parser.add_argument("--web-workers", type=_parse_count, metavar="N", help="default: MCP_WEB_WORKERS")
        parser.add_argument("--task-workers", type=_parse_count, metavar="N", help="default: MCP_TASK_WORKERS")
        parser.add_argument("--listener", type=int, metavar="DESCRIPTOR", help="an inherited socket to listen on")

    def handle(self, *, part: str | None, **options: Any) -> None:
        if part is not None:
            if settings.MCP.supervisor_pid:
                end_with_parent(parent_pid=settings.MCP.supervisor_pid)
            elif part not in PARTS_WITHOUT_BROKER:
                check_broker_runs(settings.BROKER_SOCKET)
                check_master_key()
        sys.exit(
            get_part(part or EVERYTHING).run(
                PartOptions(
                    environment=settings.MCP,
                    web_workers=options["web_workers"] or settings.MCP.web_workers,
                    task_workers=options["task_workers"] or settings.MCP.task_workers,
                    listener_descriptor=options["listener"],
                )
            )
        )


def _parse_count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 256:
        raise ArgumentTypeError(f"expected a number from 1 to 256, not {text!r}")
    return int(text)
