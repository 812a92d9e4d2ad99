"""How log records are written, and which are not."""

from __future__ import annotations

import logging
import time
from typing import ClassVar

from protocol.domain.redaction import Redactor


class ReadinessFilter(logging.Filter):
    """Drops Django's line for each 503 of ``/readyz``: it is asked every second, and logs its changes itself."""

    def filter(self, record: logging.LogRecord) -> bool:
        return getattr(getattr(record, "request", None), "path", None) != "/readyz"


class RefusalFilter(logging.Filter):
    """Takes the traceback off Django's line for a refused request: whoever it was that asked, nothing failed."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(record, "status_code", 500) < 500:
            record.exc_info = None
        return True


class LineFormatter(logging.Formatter):
    """``2026-11-20T16:31:00.123Z INFO tools.services: text``; a traceback follows, each of its lines indented.

    No message can pass for another record: what would begin a line or move the cursor is escaped. And none shows a
    secret that the redactor knows, or knows the form of, whoever wrote it.
    """

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"
    escapes: ClassVar[dict[int, str]] = {
        code: f"\\x{code:02x}" for code in (*range(32), 127, 0x85) if code != ord("\t")
    } | {ord("\n"): "\\n", ord("\r"): "\\r"}

    def __init__(self, *, redactor: Redactor) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self._redactor = redactor

    def format(self, record: logging.LogRecord) -> str:
        return self._redactor.redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # logging's name
        return super().formatMessage(record).translate(self.escapes)

    def formatException(self, ei: object) -> str:  # noqa: N802  # logging's name
        text = super().formatException(ei)  # type: ignore[arg-type]  # logging keeps the type's name to itself
        return "    " + text.replace("\n", "\n    ")
