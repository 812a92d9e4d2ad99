"""The parts of `serve`, and what each is given.

A part's module is imported when the part is run: the scheduler, say, needs no web server in its memory.
"""

from __future__ import annotations

import importlib
from typing import Final, Protocol, cast

import msgspec

from mcp_site.settings.environment import Environment


class PartOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the command line and the settings say."""

    environment: Environment
    web_workers: int
    task_workers: int
    listener_descriptor: int | None = None
    """A listening socket that was inherited; without it the web part binds its own."""


class Part(Protocol):
    """A module with this function."""

    def run(self, options: PartOptions) -> int:
        """Run until a signal. The exit code."""


EVERYTHING: Final = "everything"
PARTS_WITHOUT_BROKER: Final = frozenset({"prepare"})
MODULES: Final = {
    EVERYTHING: "mcp_site.serving.startup",
    "prepare": "mcp_site.serving.preparation",
    "web": "mcp_site.serving.web",
    "worker": "mcp_site.serving.worker",
    "scheduler": "mcp_site.serving.scheduler",
}


def get_part(name: str) -> Part:
    """The part's module."""
    return cast("Part", importlib.import_module(MODULES[name]))
