"""`manage.py make_reference`: write the reference pages that are made from code, or say which are stale."""

from __future__ import annotations

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from mcp_site.reference.pages import PAGES
from mcp_site.settings.variables import PROJECT_ROOT
from tools.services import load_tools


class Command(BaseCommand):
    help = "Write the pages of docs/reference/ that are made from code: settings, errors, commands, states, tools."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--check", action="store_true", help="write nothing; fail if a page is stale")
        parser.add_argument(
            "--folder", type=Path, default=PROJECT_ROOT / "docs" / "reference", help="default: docs/reference"
        )

    def handle(self, *_: Any, check: bool, folder: Path, **__: Any) -> None:
        load_tools()
        made = {folder / name: make_page() for name, make_page in PAGES.items()}
        stale = [path for path, text in made.items() if not path.exists() or path.read_text() != text]
        if check and stale:
            names = ", ".join(path.name for path in stale)
            raise CommandError(f"stale: {names}; run manage.py make_reference and commit what it writes")
        for path in stale:
            path.write_text(made[path])
            self.stdout.write(f"wrote {path.name}")
        if not stale:
            self.stdout.write("nothing is stale")
