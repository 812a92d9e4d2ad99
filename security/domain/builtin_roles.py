"""The roles that come with the server: what they are called and what they grant.

This is the one place where that is said. The database follows at every start and after every ``migrate``
(``services.synchronise_builtin_roles``): what is added here is granted, what is taken away here is so no longer.
Nobody changes them by hand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltinRole:
    """One role."""

    name: str
    description: str
    grants: frozenset[tuple[str, str]]
    """Pairs of an action pattern and a resource pattern, all of them allowed."""


BUILTIN_ROLES: Final = (
    BuiltinRole(name="operator", description="Everything.", grants=frozenset({("*", "*:*")})),
    BuiltinRole(
        name="agent",
        description="Sees and runs every tool, sees its own executions, leases ports.",
        grants=frozenset(
            {
                ("tools.view", "tool:*"),
                ("tools.execute", "tool:*"),
                ("executions.view", "execution:*@own"),
                ("executions.cancel", "execution:*@own"),
                ("executions.retry", "execution:*@own"),
                ("ports.*", "port:*@own"),
                ("sessions.view", "session:*@own"),
                ("sessions.revoke", "session:*@own"),
            }
        ),
    ),
    BuiltinRole(
        name="viewer",
        description="Sees every tool, execution and leased port, runs nothing.",
        grants=frozenset(
            {
                ("tools.view", "tool:*"),
                ("executions.view", "execution:*"),
                ("ports.list", "port:*"),
                ("ports.check", "port:*"),
                ("sessions.view", "session:*@own"),
                ("sessions.revoke", "session:*@own"),
            }
        ),
    ),
)
