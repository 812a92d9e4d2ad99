"""The supervisor's smaller parts: pauses, lines, log records, the broker's socket, the installer."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings
from django.test import Client

from mcp_site import __version__
from mcp_site.errors import BadEnvironment
from mcp_site.logs import LineFormatter
from mcp_site.serving.children import LONGEST_PAUSE_SECONDS, choose_pause
from mcp_site.serving.output import LineSplitter, Output
from mcp_site.settings.sockets import MAX_PATH_BYTES, choose_broker_socket, make_celery_url
from protocol.domain.redaction import Redactor
from tests.services import PROJECT_ROOT


def test_pauses_grow_to_a_bound() -> None:
    pauses = [choose_pause(failures=failures) for failures in range(1, 100)]
    assert pauses[:4] == [0.25, 0.5, 1, 2]
    assert max(pauses) == LONGEST_PAUSE_SECONDS


def test_lines_come_whole_out_of_any_chunks() -> None:
    splitter = LineSplitter()
    text = "one\ntwo\r\nümlaut\nrest".encode()
    lines = [line for byte in text for line in splitter.feed(bytes([byte]))]
    assert lines == ["one", "two", "ümlaut"]
    assert splitter.finish() == ["rest"]
    assert splitter.finish() == []


def test_a_line_without_an_end_is_cut() -> None:
    splitter = LineSplitter()
    cut = splitter.feed(b"a" * (splitter.max_line_bytes + 1))
    assert [len(line) for line in cut] == [splitter.max_line_bytes + 1]
    assert splitter.finish() == []


def test_every_line_is_named_and_secrets_stay_out_of_files(tmp_path: Path) -> None:
    console = io.StringIO()
    output = Output(log_dir=tmp_path, console=console, redactor=Redactor())
    output.write("web.1", "100 % done")
    output.record("valkey", "quiet")
    output.announce("the secret")
    output.close()
    assert console.getvalue() == "web.1     | 100 % done\nthe secret\n"
    files = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert files == {"web.1.log": "100 % done\n", "valkey.log": "quiet\n"}


def test_a_console_that_takes_nothing_holds_nobody_up(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    console = os.fdopen(writer, "w")
    output = Output(log_dir=tmp_path, console=console, redactor=Redactor())
    try:
        for number in range(20_000):
            output.write("web.1", f"{number} {'x' * 100}")
        assert (tmp_path / "web.1.log").read_text().splitlines()[-1].startswith("19999 ")
    finally:
        os.close(reader)
        output.close()
        with contextlib.suppress(BrokenPipeError):
            console.close()


@pytest.mark.parametrize("text", ["two\nlines", "a\rb", "\x1b[2Jgone", "a\x85b"])
def test_a_message_cannot_pass_for_a_record(text: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(redactor=Redactor()))
    handler.handle(logging.makeLogRecord({"msg": "got %s", "args": (text,), "levelname": "INFO"}))
    written = stream.getvalue()
    assert written.count("\n") == 1
    assert not any(character in written for character in "\r\x1b\x85")


def test_a_traceback_is_indented_under_its_record() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    head, *rest = LineFormatter(redactor=Redactor()).format(record).splitlines()
    assert head.endswith("failed")
    assert rest
    assert all(line.startswith("    ") for line in rest)


def test_a_long_path_gets_a_short_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_broker_socket(Path("/srv/mcp")) == Path("/srv/mcp/run/valkey.sock")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    long = tmp_path / ("deep/" * 30)
    chosen = choose_broker_socket(long)
    assert chosen == choose_broker_socket(long) != choose_broker_socket(long / "other")
    assert chosen.is_relative_to(tmp_path)
    chosen.parent.mkdir(mode=0o700)
    assert choose_broker_socket(long) == chosen
    # A folder that others could have prepared is not used.
    chosen.parent.chmod(0o777)
    with pytest.raises(BadEnvironment, match="MCP_DATA_DIR"):
        choose_broker_socket(long)
    chosen.parent.rmdir()
    (tmp_path / "elsewhere").mkdir(mode=0o700)
    chosen.parent.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadEnvironment, match="MCP_DATA_DIR"):
        choose_broker_socket(long)


def test_a_socket_has_a_name_that_the_kernel_takes() -> None:
    assert settings.BROKER_SOCKET is not None
    assert len(os.fsencode(settings.BROKER_SOCKET)) <= MAX_PATH_BYTES


@pytest.mark.parametrize(
    ("redis", "celery"),
    [("unix:///run/x.sock", "redis+socket:///run/x.sock"), ("rediss://h:1/2", "rediss://h:1/2")],
)
def test_celery_finds_the_same_server(redis: str, celery: str) -> None:
    assert make_celery_url(redis) == celery


@pytest.mark.django_db
def test_static_files_are_served_without_collecting_them(client: Client) -> None:
    answer = client.get("/static/admin/css/base.css")
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, 'text/css; charset="utf-8"')
    assert b"body" in answer.content
    assert (
        client.get("/static/admin/css/base.css", headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    )
    assert client.get("/static/../settings.py").status_code == 404


@pytest.mark.django_db
def test_the_front_page_leads_to_the_console(client: Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_there_is_one_version() -> None:
    assert f'\nversion = "{__version__}"\n' in (PROJECT_ROOT / "pyproject.toml").read_text()


def install(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    (folder / "requirements.txt").write_text("# nothing\n")
    return subprocess.run(
        [PROJECT_ROOT / ".ci" / "install", python, ".venv", "requirements.txt"],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


def make_python(folder: Path, *, script: str) -> str:
    """A pretended interpreter."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_an_installation_that_cannot_be_is_one_line(tmp_path: Path) -> None:
    too_old = make_python(tmp_path, script='case "$1" in -V) echo "Python 3.9.2";; *) exit 1;; esac')
    refusals = {"3.11": install(tmp_path, too_old), "not found": install(tmp_path, "no-such-python")}
    no_venv = make_python(tmp_path, script=f'case "$2" in *ensurepip*) exit 1;; *) exec {sys.executable} "$@";; esac')
    refusals["python3-venv"] = install(tmp_path, no_venv)
    for word, refused in refusals.items():
        assert refused.returncode != 0
        assert len(refused.stderr.splitlines()) == 1
        assert word in refused.stderr
    assert not (tmp_path / ".venv").exists()
