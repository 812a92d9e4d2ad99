"""What may be recorded, and that nothing else is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from security.domain import recorded_actions
from security.domain.audit_actions import (
    AuditAction,
    UnregisteredEvent,
    get_audit_actions,
    register_audit_actions,
    require_registered,
)
from tools.domain import recorded_actions as tools_actions

ROOT = Path(__file__).parents[3]
APPS = ("protocol", "security", "contexts", "tools", "mcp_site")
RECORDERS = {"record_event", "record_account_event", "record_key_act", "_record", "_record_end", "record_definition"}


@pytest.mark.parametrize(
    ("action", "kind", "data"),
    [
        ("tokens.invent", "token_family", set()),
        ("tokens.issue", "account", set()),
        ("tokens.issue", "token_family", {"jti", "password"}),
    ],
)
def test_what_no_table_has_cannot_be_recorded(action: str, kind: str, data: set[str]) -> None:
    with pytest.raises(UnregisteredEvent):
        require_registered(action=action, kind=kind, data=data)


def test_what_a_table_has_can_be() -> None:
    require_registered(action="tokens.issue", kind="token_family", data={"jti", "address"})
    require_registered(action="access.deny", kind="anything", data=set())


def test_an_action_has_one_meaning() -> None:
    known = get_audit_actions()["tokens.issue"]
    register_audit_actions(known)
    with pytest.raises(ValueError, match="there already"):
        register_audit_actions(AuditAction(name=known.name, summary="Another.", kinds=()))


def test_every_apps_table_is_registered() -> None:
    tables = [*recorded_actions.RECORDED_ACTIONS, *tools_actions.RECORDED_ACTIONS]
    names = [action.name for action in tables]
    assert len(names) == len(set(names))
    assert set(names) == set(get_audit_actions())


def test_every_action_that_code_names_is_registered() -> None:
    named = set(list_named_actions())
    assert len(named) > 25
    assert {name for name in named if name not in get_audit_actions()} == set()


def list_named_actions() -> Iterator[str]:
    """The actions in calls of what records, as texts or by constants of the modules."""
    trees = [ast.parse(path.read_text()) for app in APPS for path in (ROOT / app).rglob("*.py")]
    constants = dict(entry for tree in trees for entry in list_constants(tree))
    for tree in trees:
        for value in list_recorded(tree):
            if isinstance(value, ast.Constant):
                yield str(value.value)
            name = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
            if name.isupper():
                yield constants[name]


def list_constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign | ast.Assign):
            continue
        value = node.value.args[0] if isinstance(node.value, ast.Call) and node.value.args else node.value
        target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield target.id, value.value


def list_recorded(tree: ast.Module) -> Iterator[ast.expr]:
    """What stands as the action in those calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            yield from (word.value for word in node.keywords if called in RECORDERS and word.arg == "action")
