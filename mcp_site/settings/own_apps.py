"""The apps that an installation adds to ours: looked for before Django loads them, so that a wrong name is one line."""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Sequence

from mcp_site.errors import BadEnvironment


def find_apps(names: Sequence[str], *, installed: Collection[str]) -> list[str]:
    """The names, each of a package that Python finds and that is not installed already.

    Raises:
        BadEnvironment: one of them is not; it is named.
    """
    taken = set(installed)
    for name in names:
        if name in taken:
            raise BadEnvironment(f"MCP_APPS: {name} is installed already; choose another name for your own app")
        if not _is_package(name):
            raise BadEnvironment(
                f"MCP_APPS: Python finds no package {name!r}; put the folder that holds it on PYTHONPATH"
            )
        taken.add(name)
    return list(names)


def _is_package(name: str) -> bool:
    if not all(part.isidentifier() for part in name.split(".")):
        return False
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        return False
    # A single module has no place for `mcp_tools.py` beside it.
    return found is not None and found.submodule_search_locations is not None
