"""The actions that policy is asked about: a registry, so that the docs know them all.

An action is registered where its constant stands, so that none can be asked about and be forgotten here.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

_summaries: dict[str, str] = {}


def register_action(name: str, *, summary: str) -> str:
    """The name, known from now on; the same one again changes nothing.

    Raises:
        ValueError: the name is another action's.
    """
    if _summaries.setdefault(name, summary) != summary:
        raise ValueError(f"The action {name!r} is there already.")
    return name


def get_actions() -> Mapping[str, str]:
    """What each action is, by its name."""
    return MappingProxyType(_summaries)
