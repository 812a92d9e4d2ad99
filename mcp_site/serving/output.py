"""Where the lines of all processes go: to the console, each named, and to a file a process, rotated.

A console that is not read (a stopped terminal, a full pipe) never holds up a process: lines beyond a bound are dropped
from it, and counted; the files have them all.
"""

from __future__ import annotations

import logging
import logging.handlers
import queue
import threading
from pathlib import Path
from typing import Final, TextIO

from protocol.domain.redaction import Redactor

MAX_FILE_BYTES: Final = 10 * 1024 * 1024
KEPT_FILES: Final = 5
MAX_WAITING_LINES: Final = 10_000
NAME_WIDTH: Final = 9
CLOSE_SECONDS: Final = 1.0


class Output:
    """All writing of the supervisor. ``write`` never blocks on the console and never raises."""

    def __init__(self, *, log_dir: Path, console: TextIO, redactor: Redactor) -> None:
        """``redactor``: what a process writes past its log, a library or the interpreter itself, passes it too."""
        self._redactor = redactor
        self._log_dir = log_dir
        self._console = console
        self._files: dict[str, logging.Handler] = {}
        self._lines: queue.Queue[str | None] = queue.Queue(MAX_WAITING_LINES)
        self._dropped = 0
        self._thread = threading.Thread(target=self._print, daemon=True, name="console")
        self._thread.start()

    def write(self, name: str, line: str) -> None:
        """One line of the process, to the console and its file."""
        line = self._redactor.redact(line)
        self._record(name, line)
        self._show(f"{name:<{NAME_WIDTH}} | {line}")

    def record(self, name: str, line: str) -> None:
        """One line of the process, to its file alone."""
        self._record(name, self._redactor.redact(line))

    def _record(self, name: str, line: str) -> None:
        self._get_file(name).handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))

    def announce(self, text: str) -> None:
        """Text for the console alone: what is in no file may be a secret."""
        self._show(text)

    def close(self) -> None:
        """Write what waits, as long as the console takes it."""
        try:
            self._lines.put(None, timeout=CLOSE_SECONDS)
        except queue.Full:
            return
        self._thread.join(CLOSE_SECONDS)
        for handler in self._files.values():
            handler.close()

    def _show(self, text: str) -> None:
        try:
            self._lines.put_nowait(text)
        except queue.Full:
            self._dropped += 1

    def _print(self) -> None:
        while (text := self._lines.get()) is not None:
            dropped, self._dropped = self._dropped, 0
            try:
                if dropped:
                    self._console.write(
                        f"{'serve':<{NAME_WIDTH}} | {dropped} lines were not shown; the files have them\n"
                    )
                self._console.write(text + "\n")
                self._console.flush()
            except (OSError, ValueError):
                # The terminal is gone; the files go on.
                continue

    def _get_file(self, name: str) -> logging.Handler:
        if name not in self._files:
            path = self._log_dir / f"{name}.log"
            self._files[name] = logging.handlers.RotatingFileHandler(
                path, maxBytes=MAX_FILE_BYTES, backupCount=KEPT_FILES, encoding="utf-8", errors="replace"
            )
        return self._files[name]


class LineSplitter:
    """Lines from the chunks of a pipe; a line longer than the bound is cut."""

    max_line_bytes: Final = 64 * 1024

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, chunk: bytes) -> list[str]:
        """The lines that the chunk completes."""
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > self.max_line_bytes:
            lines.append(self._rest)
            self._rest = b""
        return [line.decode(errors="replace").rstrip("\r") for line in lines]

    def finish(self) -> list[str]:
        """What the pipe left without an end of line."""
        return self.feed(b"\n") if self._rest else []
