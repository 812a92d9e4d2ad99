"""Which records are written, and what of them."""

from __future__ import annotations

import logging
import sys

import pytest

from mcp_site.logs import RefusalFilter


def make_record(status_code: int) -> logging.LogRecord:
    try:
        raise PermissionError("no")
    except PermissionError:
        record = logging.LogRecord("django.request", logging.WARNING, __file__, 1, "Forbidden", None, sys.exc_info())
    record.status_code = status_code
    return record


@pytest.mark.parametrize(("status_code", "has_traceback"), [(403, False), (404, False), (500, True)])
def test_only_what_failed_has_a_traceback(status_code: int, has_traceback: bool) -> None:
    record = make_record(status_code)
    assert RefusalFilter().filter(record)
    assert (record.exc_info is not None) == has_traceback
