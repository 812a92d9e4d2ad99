"""What the README and the tutorial show is what a newcomer sees: their own tool, their own agent, the example."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, PROJECT_ROOT, find_console, list_blocks
from tests.services import Product, run_product

README = PROJECT_ROOT / "README.md"
EXECUTION = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")
CUT = "…"
END = "--- the end of a command ---"

# On one process, so that the product is started once.
pytestmark = pytest.mark.xdist_group("newcomers")


@pytest.fixture(scope="module")
def newcomers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product with the README's tool installed as the README says."""
    folder = tmp_path_factory.mktemp("newcomer")
    (tool,) = (block for block in list_blocks(README) if block.language == "python")
    (folder / "mcp-apps" / "my_tools").mkdir(parents=True)
    (folder / "mcp-apps" / "my_tools" / "mcp_tools.py").write_text(tool.text)
    with run_product(folder / "var", PYTHONPATH=str(folder / "mcp-apps"), MCP_APPS="my_tools") as product:
        yield product


def run_agent(product: Product, script: Path, *arguments: str) -> list[str]:
    run = subprocess.run(
        [sys.executable, str(script), *arguments],
        env={"PATH": os.environ["PATH"], "MCP_URL": product.websocket_url, "MCP_API_KEY": product.agent_api_key},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.splitlines()


def test_the_first_start_tells_what_the_tutorial_shows(newcomers: Product) -> None:
    shown = find_console(DOCS / "tutorial/first-run.md", "make run")
    labels = [line.strip().split("  ")[0] for line in shown if line.startswith("  ")]
    assert {"console", "WebSocket", "operator's password", "agent's API key"} <= set(labels)
    for label in labels:
        assert label.partition(" /")[0] in newcomers.output
    assert shown[-1] in newcomers.output


CALLS = {
    """.venv/bin/python manage.py call my_tools.shout --input '{"text": "hello"}'""": [
        README,
        DOCS / "tutorial/your-own-tool.md",
        DOCS / "how-to/add-a-tool.md",
    ],
    """.venv/bin/python manage.py call text.count_words --input '{"text": "one two three"}'""": [
        README,
        DOCS / "tutorial/first-run.md",
    ],
}


@pytest.mark.parametrize(("command", "pages"), CALLS.items(), ids=["your-own-tool", "builtin"])
def test_a_tool_is_called_as_shown(newcomers: Product, command: str, pages: list[Path]) -> None:
    called = newcomers.manage(*shlex.split(command)[2:])
    printed = [EXECUTION.sub("", line.strip()) for line in (called.stderr, called.stdout)]
    for page in pages:
        assert [EXECUTION.sub("", line) for line in find_console(page, command)] == printed, page


def test_your_own_agent_prints_what_the_tutorial_shows(newcomers: Product, tmp_path: Path) -> None:
    page = DOCS / "tutorial/your-own-agent.md"
    (agent,) = (block for block in list_blocks(page) if block.language == "python")
    (tmp_path / "my_agent.py").write_text(agent.text)
    printed = run_agent(newcomers, tmp_path / "my_agent.py")
    own = "my_tools.shout: Say it louder."
    assert own in printed
    assert own in (DOCS / "tutorial/your-own-tool.md").read_text()
    assert [line for line in printed if line != own] == find_console(page, ".venv/bin/python my_agent.py")


@pytest.mark.parametrize(
    ("page", "arguments"), [(README, ()), (DOCS / "tutorial/first-run.md", ("kill -9",))], ids=["README", "tutorial"]
)
def test_the_example_prints_what_is_shown(newcomers: Product, page: Path, arguments: tuple[str, ...]) -> None:
    quoted = "".join(f" '{argument}'" for argument in arguments)
    shown = find_console(page, f".venv/bin/python examples/agent.py{quoted}")
    printed = run_agent(newcomers, PROJECT_ROOT / "examples" / "agent.py", *arguments)
    first, last = shown[: shown.index(CUT)], shown[shown.index(CUT) + 1]
    assert first
    assert first == printed[: len(first)], "\n".join(printed)
    # How many there are changes with every page that is written; the last line's form does not.
    assert re.sub(r"\d+", "", EXECUTION.sub("", last)) == re.sub(r"\d+", "", EXECUTION.sub("", printed[-1]))


def test_the_page_on_http_prints_what_it_shows(newcomers: Product, tmp_path: Path) -> None:
    page = DOCS / "how-to/call-tools-over-http.md"
    steps = [step for block in list_blocks(page) if block.language == "console" for step in split_console(block.text)]
    assert len(steps) > 8
    script = "\n".join(f"{command}\necho {END}" for command, _ in steps)
    script = script.replace("http://127.0.0.1:9000/", newcomers.url).replace("var/", f"{newcomers.data_dir}/")
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
    )
    assert run.returncode == 0, run.stderr
    printed = run.stdout.split(f"{END}\n")
    for (command, shown), output in zip(steps, printed, strict=False):
        pattern = ".*".join(re.escape(part) for part in shown.strip().split(CUT))
        assert re.fullmatch(pattern, output.strip()), f"{command}\n{output}"


def split_console(text: str) -> Iterator[tuple[str, str]]:
    """Each command of a console block, and what it prints."""
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines = part.splitlines()
        count = next((number for number, line in enumerate(lines, 1) if not line.endswith("\\")), len(lines))
        yield "\n".join(lines[:count]), "\n".join(lines[count:])
