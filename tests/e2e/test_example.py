"""`examples/agent.py` as a newcomer runs it: a process of its own, against the real product."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

from tests.services import PROJECT_ROOT, Product

AGENT = PROJECT_ROOT / "examples" / "agent.py"
MAX_LINES = 80
MATCH = re.compile(r"(?P<path>[^:]+):(?P<line>\d+): (?P<text>.*)")
LAST_LINE = re.compile(r"(?P<count>\d+) matches(, and there are more)?; execution (?P<execution>[0-9a-f-]{36})")


def run_agent(*arguments: str, program: Path = AGENT, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(program), *arguments],
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def run_against(product: Product, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_agent(*arguments, MCP_URL=product.websocket_url, MCP_API_KEY=product.agent_api_key)


def assert_refused(run: subprocess.CompletedProcess[str], *shown: str) -> None:
    """One line that says what is wrong, and an exit code that a script sees."""
    assert run.returncode == 1
    assert run.stdout == ""
    lines = run.stderr.splitlines()
    assert len(lines) == 1, run.stderr
    assert lines[0].startswith("error: ")
    for text in shown:
        assert text in lines[0]


def test_it_prints_where_the_workspace_has_the_pattern_and_which_run_found_it(product: Product) -> None:
    run = run_against(product)
    assert run.returncode == 0, run.stderr
    *found, last = run.stdout.splitlines()
    end = LAST_LINE.fullmatch(last)
    assert end is not None, last
    assert int(end["count"]) == len(found) > 0
    assert uuid.UUID(end["execution"]).version == 7
    for line in found:
        match = MATCH.fullmatch(line)
        assert match is not None, line
        lines = (PROJECT_ROOT / "docs" / match["path"]).read_text().splitlines()
        assert match["text"] in lines[int(match["line"]) - 1]
        assert "WebSocket" in match["text"]
    assert "... " in run.stderr, "no progress was shown"


def test_its_argument_is_the_pattern(product: Product) -> None:
    run = run_against(product, "no text anywhere has this: [0-9]{77}")
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("0 matches; execution ")


def test_a_tools_error_is_one_line_with_its_code(product: Product) -> None:
    assert_refused(run_against(product, "("), "tool.")


def test_a_wrong_key_is_one_line_with_its_code(product: Product) -> None:
    wrong = f"mcp_{'A' * 43}"
    run = run_agent(MCP_URL=product.websocket_url, MCP_API_KEY=wrong)
    assert_refused(run, "security.authentication_failed")
    assert wrong not in run.stderr


def test_an_address_that_is_not_the_sockets_is_one_line(product: Product) -> None:
    address = product.websocket_url.replace("/ws/", "/elsewhere/")
    assert_refused(run_agent(MCP_URL=address, MCP_API_KEY=product.agent_api_key), address)
    assert_refused(run_agent(MCP_URL="nonsense", MCP_API_KEY=product.agent_api_key), "nonsense")


def test_no_server_is_one_line_that_says_how_to_start_one() -> None:
    address = "ws://127.0.0.1:1/ws/"
    assert_refused(run_agent(MCP_URL=address, MCP_API_KEY="any"), address, "make run")


def test_no_key_is_one_line_that_says_where_one_comes_from(tmp_path: Path) -> None:
    program = tmp_path / "examples" / "agent.py"
    program.parent.mkdir()
    program.write_text(AGENT.read_text())
    assert_refused(run_agent(program=program), "MCP_API_KEY", str(tmp_path / "var/first-run/agent-api-key"))


def test_the_key_of_the_first_start_is_used_by_itself(product: Product, tmp_path: Path) -> None:
    program = tmp_path / "examples" / "agent.py"
    program.parent.mkdir()
    program.write_text(AGENT.read_text())
    (tmp_path / "var").symlink_to(product.data_dir)
    run = run_agent(program=program, MCP_URL=product.websocket_url)
    assert run.returncode == 0, run.stderr


def test_it_is_short_enough_to_be_read_at_once() -> None:
    assert len(AGENT.read_text().splitlines()) <= MAX_LINES


SEALED_AGENT = PROJECT_ROOT / "examples" / "sealed_agent.py"


def test_the_sealed_agent_knows_its_server_and_gets_its_answer(product: Product) -> None:
    variables = {"MCP_URL": product.websocket_url, "MCP_API_KEY": product.agent_api_key}
    run = run_agent("one two three", program=SEALED_AGENT, **variables)
    assert run.returncode == 0, run.stderr
    first, second = run.stdout.splitlines()
    assert first.startswith("level high, server SHA256:")
    assert json.loads(second)["words"] == 3
    fingerprint = first.rpartition(" ")[2]
    again = run_agent(program=SEALED_AGENT, MCP_FINGERPRINT=fingerprint, **variables)
    assert again.returncode == 0, again.stderr
    stranger = run_agent(program=SEALED_AGENT, MCP_FINGERPRINT=f"SHA256:{'A' * 43}", **variables)
    assert_refused(stranger, fingerprint)
