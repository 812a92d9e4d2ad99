"""What an author writes, and what becomes of it."""

from __future__ import annotations

import functools
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tools.authoring import (
    MAX_CHUNK_CHARACTERS,
    MAX_OUTPUT_CHARACTERS,
    Progress,
    ToolContext,
    ToolError,
    get_declared_tools,
    tool,
)
from tools.errors import RegistrationInvalid

ROOT = Path(__file__).resolve().parents[3]


def shout(text: str) -> str:
    """Say it louder."""
    return text.upper() + "!"


def test_a_decorated_function_is_a_tool_and_stays_a_function() -> None:
    decorated = tool(name="demo.shout")(shout)
    assert decorated is shout
    assert decorated("a") == "A!"
    specification = get_declared_tools()["demo.shout@1.0.0"]
    assert specification.name == "demo.shout"
    assert specification.version == "1.0.0"
    assert specification.description == "Say it louder."
    assert specification.capabilities == ()
    assert specification.is_idempotent is False
    assert specification.timeout_seconds is None
    assert specification.adapter == "python"
    assert specification.entry_point == f"{__name__}:shout"
    assert specification.input_schema["required"] == ["text"]
    assert specification.output_schema == {"type": "string"}


def test_every_option_reaches_the_specification() -> None:
    tool(
        name="demo.shout",
        version="2.1.0-beta.1",
        description="Louder.",
        capabilities=["text.change"],
        idempotent=True,
        timeout_seconds=5,
    )(shout)
    specification = get_declared_tools()["demo.shout@2.1.0-beta.1"]
    assert specification.description == "Louder."
    assert specification.capabilities == ("text.change",)
    assert specification.is_idempotent is True
    assert specification.timeout_seconds == 5.0


def test_versions_of_one_tool_stand_side_by_side() -> None:
    tool(name="demo.shout", version="1.0.0")(shout)
    tool(name="demo.shout", version="2.0.0")(shout)
    assert {"demo.shout@1.0.0", "demo.shout@2.0.0"} <= set(get_declared_tools())


def test_a_name_and_version_is_declared_once() -> None:
    tool(name="demo.shout")(shout)
    with pytest.raises(RegistrationInvalid) as caught:
        tool(name="demo.shout")(shout)
    assert caught.value.code == "tool.registration_invalid"


def test_the_registry_is_read_only() -> None:
    with pytest.raises(TypeError):
        get_declared_tools()["a.b@1.0.0"] = None  # type: ignore[index]  # what is tested


def undocumented(text: str) -> str:
    return text


@pytest.mark.parametrize(
    ("declare", "hint"),
    [
        (lambda: tool(name="demo.undocumented")(undocumented), "docstring"),
        (lambda: tool(name="Demo.shout")(shout), "/name"),
        (lambda: tool(name="shout")(shout), "/name"),
        (lambda: tool(name="demo.shout", version="1.0")(shout), "/version"),
        (lambda: tool(name="demo.shout", capabilities="text.change")(shout), "['text.change']"),
        (lambda: tool(name="demo.shout", capabilities=["nodot"])(shout), "/capabilities"),
        (lambda: tool(name="demo.shout", timeout_seconds=0)(shout), "/timeout_seconds"),
    ],
)
def test_a_mistake_names_file_line_function_and_remedy(declare: Callable[[], object], hint: str) -> None:
    with pytest.raises(RegistrationInvalid) as caught:
        declare()
    function = undocumented if "undocumented" in caught.value.message else shout
    line = inspect.getsourcelines(function)[1]
    assert caught.value.message.startswith(f"{__file__}:{line}: {function.__name__}(): ")
    assert hint in caught.value.message


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(RegistrationInvalid):
        tool(name="demo.partial")(functools.partial(shout, "a"))


def test_a_function_wrapped_by_another_decorator_keeps_its_signature() -> None:
    @functools.wraps(shout)
    def wrapper(*args: object, **kwargs: object) -> str:
        return shout(*args, **kwargs).lower()  # type: ignore[arg-type]  # passed on

    tool(name="demo.wrapped")(wrapper)
    assert get_declared_tools()["demo.wrapped@1.0.0"].input_schema["required"] == ["text"]


PROGRAM = '''
from tools.authoring import get_declared_tools, tool

@tool
def shout(text: str, tags: frozenset[str] = frozenset({"a", "b", "c", "d"})) -> str:
    """Say it louder."""
    return text.upper() + "!"

for reference, specification in sorted(get_declared_tools().items()):
    print(reference, specification.definition_hash)
'''


def test_the_api_works_without_django_and_hashes_alike_in_every_process(tmp_path: Path) -> None:
    package = tmp_path / "demo"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mcp_tools.py").write_text(PROGRAM + "import tools.mcp_tools\n" + PROGRAM.rpartition("\n\n")[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", "import demo.mcp_tools"],
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": f"{tmp_path}:{ROOT}",
                "PYTHONHASHSEED": seed,
                "DJANGO_SETTINGS_MODULE": "",
            },
        )
        for seed in ("1", "2")
    ]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert "demo.shout@1.0.0 " in outputs[0]
    assert "files.search@" in outputs[0]
    assert outputs[0] == outputs[1]


def test_progress_is_reported_and_bounded(make_context: Callable[..., ToolContext], reports: list[Progress]) -> None:
    context = make_context()
    context.progress(0.5, "half")
    context.progress(message="x" * 10_000)
    assert reports[0] == Progress(fraction=0.5, message="half")
    assert reports[1].fraction is None
    assert reports[1].message == "x" * 500


@pytest.mark.parametrize("fraction", [-0.1, 1.1, float("nan")])
def test_a_fraction_beyond_its_range_is_the_authors_mistake(
    make_context: Callable[..., ToolContext], fraction: float
) -> None:
    with pytest.raises(ValueError, match="fraction"):
        make_context().progress(fraction)


def test_output_goes_out_in_parts_and_ends_at_its_limit(
    make_context: Callable[..., ToolContext], reports: list[Progress]
) -> None:
    context = make_context()
    context.emit_output("a" * (MAX_CHUNK_CHARACTERS + 1))
    assert [len(report.output_chunk or "") for report in reports] == [MAX_CHUNK_CHARACTERS, 1]
    context.emit_output("Z" * MAX_OUTPUT_CHARACTERS)
    sent = "".join(report.output_chunk or "" for report in reports)
    kept = sent.rpartition("Z")[0] + "Z"
    assert len(kept) == MAX_OUTPUT_CHARACTERS
    assert str(MAX_OUTPUT_CHARACTERS) in sent[len(kept) :]
    number = len(reports)
    context.emit_output("c")
    assert len(reports) == number


def test_output_that_fits_exactly_is_whole(make_context: Callable[..., ToolContext], reports: list[Progress]) -> None:
    make_context().emit_output("a" * MAX_OUTPUT_CHARACTERS)
    assert sum(len(report.output_chunk or "") for report in reports) == MAX_OUTPUT_CHARACTERS


def test_without_a_workspace_the_caller_is_told(make_context: Callable[..., ToolContext], tmp_path: Path) -> None:
    with pytest.raises(ToolError, match="MCP_WORKSPACE"):
        _ = make_context().workspace
    assert make_context(workspace=tmp_path).workspace == tmp_path


def test_an_errors_message_is_bounded() -> None:
    assert ToolError("x" * 5_000).message == "x" * 1_000
