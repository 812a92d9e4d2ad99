"""Links lead somewhere, every page can be reached, and what is called a command is one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.core.management import get_commands, load_command_class
from django.core.management.base import BaseCommand

from tests.docs.pages import DOCS, PROJECT_ROOT, iterate_code, list_anchors, list_blocks, list_links, list_pages

OWN_COMMANDS = (
    "address_rules",
    "call",
    "explain",
    "export_audit",
    "issue_key",
    "make_reference",
    "register_command_key",
    "reset_password",
    "reset_second_factor",
    "revoke_command_key",
    "revoke_sessions",
    "rotate_key",
    "rotate_keys",
    "rotate_master_key",
    "runserver",
    "serve",
    "verify_audit",
)
PAGES = pytest.mark.parametrize("page", list_pages(), ids=lambda page: str(page.relative_to(PROJECT_ROOT)))


def resolve(page: Path, target: str) -> tuple[Path, str]:
    path, _, anchor = target.partition("#")
    return (page.parent / path).resolve() if path else page, anchor


@PAGES
def test_every_link_and_picture_is_there(page: Path) -> None:
    for target in list_links(page):
        if target.startswith(("https://", "http://")):
            continue
        found, anchor = resolve(page, target)
        assert found.is_relative_to(PROJECT_ROOT), target
        assert found.exists(), target
        assert not anchor or anchor in list_anchors(found), target


def test_every_page_can_be_reached_from_the_first() -> None:
    reached: set[Path] = set()
    waiting = [PROJECT_ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        leads_to = {resolve(page, target)[0] for target in list_links(page) if "://" not in target}
        waiting += [found for found in leads_to - reached if found.suffix == ".md"]
    assert set(list_pages()) <= reached


def list_make_targets() -> set[str]:
    return set(re.findall(r"^([a-z]+):", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE))


@PAGES
def test_every_command_that_is_mentioned_exists(page: Path) -> None:
    for code in iterate_code(page):
        for name in re.findall(r"\bmake ([a-z]+)", code):
            assert name in list_make_targets(), code
        for name, rest in re.findall(r"manage\.py ([a-z_]+)([^|;&]*)", code):
            assert name in get_commands(), code
            if name in OWN_COMMANDS:
                options = list_options(name)
                assert set(re.findall(r"(?<!\w)--[a-z-]+", rest)) <= options, code
        for script in re.findall(r"(?<![\w/])examples/\w+\.py", code):
            assert (PROJECT_ROOT / script).is_file(), code


def list_options(name: str) -> set[str]:
    return read_options(load_command_class(get_commands()[name], name))


def read_options(command: BaseCommand) -> set[str]:
    parser = command.create_parser("manage.py", "")
    return {option for action in parser._actions for option in action.option_strings}


def test_every_command_and_option_of_ours_is_in_the_reference() -> None:
    text = (DOCS / "reference" / "command-line.md").read_text()
    for target in re.findall(r"^([a-z]+):.*##", (PROJECT_ROOT / "Makefile").read_text(), re.MULTILINE):
        assert f"`make {target}`" in text, target
    ours = {name for name, app in get_commands().items() if (PROJECT_ROOT / str(app).replace(".", "/")).is_dir()}
    assert ours == set(OWN_COMMANDS)
    plain = read_options(BaseCommand())
    for name in ours - {"runserver"}:
        assert f"### {name}\n" in text
        for option in list_options(name) - plain:
            assert option in text, f"{name} {option}"


@PAGES
def test_python_compiles(page: Path) -> None:
    for block in list_blocks(page):
        if block.language == "python":
            text = f"class _:\n{block.text}" if block.text.startswith("    ") else block.text
            compile(text, block.place, "exec")


@PAGES
def test_no_path_of_a_developers_machine_is_told(page: Path) -> None:
    assert not re.search(r"/(tmp|work|root)/", page.read_text())
