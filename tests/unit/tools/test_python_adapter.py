"""Finding the tools of installed apps, and calling them."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import modify_settings

from tools.adapters import Invocation, get_adapter
from tools.adapters.python import autodiscover, get_pack_failures
from tools.authoring import ToolContext, ToolError, get_declared_tools, tool
from tools.errors import ExecutionFailed, InvalidInput, InvalidOutput, ToolUnavailable

GOOD_TOOL = '''
from tools.authoring import tool

@tool
def shout(text: str) -> str:
    """Say it louder."""
    return text.upper() + "!"
'''


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., modify_settings]]:
    """Write Django apps of a name, a label and an ``mcp_tools.py``, and give what installs them."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(packs: dict[str, str]) -> modify_settings:
        for name, source in packs.items():
            folder = tmp_path / name
            folder.mkdir()
            (folder / "__init__.py").touch()
            (folder / "apps.py").write_text(
                "from django.apps import AppConfig\n\n\n"
                f"class Config(AppConfig):\n    name = {name!r}\n    label = {name + '_label'!r}\n"
            )
            (folder / "mcp_tools.py").write_text(source)
        return modify_settings(INSTALLED_APPS={"append": list(packs)})

    yield write
    for name in [name for name, module in sys.modules.items() if str(tmp_path) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


def call(name: str, value: object, context: ToolContext, *, version: str = "1.0.0") -> object:
    specification = get_declared_tools()[f"{name}@{version}"]
    invocation = Invocation(
        entry_point=specification.entry_point,
        tool=name,
        version=version,
        definition_hash=specification.definition_hash,
        input=value,
    )
    return get_adapter("python").run(invocation=invocation, context=context)


def test_a_five_line_tool_of_an_installed_app_is_found_and_runs(
    install: Callable[..., modify_settings], context: ToolContext
) -> None:
    with install({"demo": GOOD_TOOL}):
        autodiscover()
        autodiscover()
    assert get_pack_failures() == ()
    assert call("demo_label.shout", {"text": "hi"}, context) == "HI!"


DEFINITION_HASH = "0" * 64

BROKEN_PACKS = {
    "syntax": "def (",
    "import": "import no_such_module",
    "raises": f"{GOOD_TOOL}\nraise RuntimeError('boom')",
    "mistake": f"{GOOD_TOOL}\n@tool\ndef other(text):\n    '''Do.'''",
    "duplicate": GOOD_TOOL.replace("@tool\n", "@tool(name='files.read')\n"),
}


@pytest.mark.parametrize("broken", BROKEN_PACKS)
def test_a_broken_pack_costs_its_own_tools_only(
    install: Callable[..., modify_settings], caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    with install({"bad": BROKEN_PACKS[broken], "good": GOOD_TOOL}), caplog.at_level(logging.ERROR):
        autodiscover()
    declared = {reference.partition(".")[0] for reference in get_declared_tools()}
    assert "good_label" in declared
    assert "files" in declared
    assert "bad_label" not in declared
    (failure,) = get_pack_failures()
    assert (failure.app_label, failure.module) == ("bad_label", "bad.mcp_tools")
    assert str(Path("bad") / "mcp_tools.py") in failure.error
    (record,) = caplog.records
    assert "bad_label" in record.getMessage()
    assert record.exc_info is None


def test_a_mended_pack_is_a_failure_no_more(install: Callable[..., modify_settings], tmp_path: Path) -> None:
    with install({"bad": "import no_such_module"}):
        autodiscover()
        assert get_pack_failures()
        (tmp_path / "bad" / "mcp_tools.py").write_text(GOOD_TOOL + "# mended, and of another length\n")
        autodiscover()
    assert get_pack_failures() == ()
    assert "bad_label.shout@1.0.0" in get_declared_tools()


def test_only_declared_functions_are_called(context: ToolContext) -> None:
    for entry_point, name in (("os:getcwd", "os.getcwd"), ("os:getcwd", "text.count_words")):
        invocation = Invocation(
            entry_point=entry_point, tool=name, version="1.0.0", definition_hash=DEFINITION_HASH, input={"text": ""}
        )
        with pytest.raises(ToolUnavailable) as caught:
            get_adapter("python").run(invocation=invocation, context=context)
        assert caught.value.code == "tool.unavailable"


def test_a_run_that_was_accepted_with_another_definition_is_not_called(context: ToolContext) -> None:
    specification = get_declared_tools()["text.count_words@1.0.0"]
    invocation = Invocation(
        entry_point=specification.entry_point,
        tool="text.count_words",
        version="1.0.0",
        definition_hash="0" * 64,
        input={"text": ""},
    )
    with pytest.raises(ToolUnavailable):
        get_adapter("python").run(invocation=invocation, context=context)


def test_an_unknown_adapter_is_unavailable() -> None:
    with pytest.raises(ToolUnavailable):
        get_adapter("carrier-pigeon")


def test_the_context_goes_where_the_author_wants_it(context: ToolContext) -> None:
    @tool(name="demo.where")
    def where(count: int, run: ToolContext, more: int = 1) -> str:
        """Tell the run."""
        return f"{run.execution_id} {count + more}"

    assert call("demo.where", {"count": 1}, context) == f"{context.execution_id} 2"


def test_a_coroutine_runs(context: ToolContext) -> None:
    @tool(name="demo.later")
    async def later(text: str) -> str:
        """Say it later."""
        await asyncio.sleep(0)
        return text

    assert call("demo.later", {"text": "a"}, context) == "a"


def test_an_expected_failure_reaches_the_caller_in_the_authors_words(context: ToolContext) -> None:
    @tool(name="demo.fails")
    def fails() -> None:
        """Fail."""
        raise ToolError("The printer is out of paper.")

    with pytest.raises(ExecutionFailed) as caught:
        call("demo.fails", {}, context)
    assert caught.value.code == "tool.execution_failed"
    assert caught.value.message == "The printer is out of paper."


def test_any_other_exception_goes_through(context: ToolContext) -> None:
    @tool(name="demo.breaks")
    def breaks() -> None:
        """Break."""
        raise KeyError("secret")

    with pytest.raises(KeyError):
        call("demo.breaks", {}, context)


def test_input_and_output_are_converted_and_refused(context: ToolContext) -> None:
    @tool(name="demo.convert")
    def convert(values: set[int]) -> Any:
        """Convert."""
        return object() if not values else sorted(values)

    assert call("demo.convert", {"values": [2, 1]}, context) == [1, 2]
    with pytest.raises(InvalidInput):
        call("demo.convert", {"values": ["x"]}, context)
    with pytest.raises(InvalidOutput):
        call("demo.convert", {"values": []}, context)
