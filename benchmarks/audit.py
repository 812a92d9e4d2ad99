"""``python -m benchmarks.audit``: what the audit record costs, in a process and a database of its own.

A short transaction with an event and without; sealing; verifying, time and peak memory; and how long the first denial
of a source takes until it may be told. Times are CPU of this process, but for denials, which are waited for, and for
verifying, which is the command itself. Figures: JSON on stdout. ``benchmarks.recorded`` measures the whole.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec

from benchmarks.product import PROJECT_ROOT

REPEATS = 5
TRANSACTIONS = 1_000
AUDIT_PAGE = "/admin/security/auditevent/"
AUDIT_QUERIES = {
    "newest": "",
    "last_page": "?p=100",
    "by_action": "?action=execution.",
    "by_outcome": "?outcome=failed",
    "by_position": "?q=77",
    "by_name": "?q=none-such",
}
DENIALS = 200
DENIAL_PAUSE_SECONDS = 0.03
"""Below the ceiling of events a second: each is the first of its source, and written at once."""


def measure(*, rows: int) -> dict[str, object]:
    """All figures; the database has ``rows`` events for sealing and verifying."""
    import django  # noqa: PLC0415  # the data folder is set first

    django.setup()
    from django.core.management import call_command  # noqa: PLC0415  # as above
    from django.db import transaction  # noqa: PLC0415  # as above

    from protocol.ports import Denial, Door, Resource  # noqa: PLC0415  # as above
    from security import services  # noqa: PLC0415  # as above
    from security.models import AuditEvent, UnsealedEvent  # noqa: PLC0415  # as above
    from security.services.audit import record_event  # noqa: PLC0415  # as above
    from security.services.denials import DenialRecorder  # noqa: PLC0415  # as above
    from tests.keys import ensure_keys  # noqa: PLC0415  # as above

    call_command("migrate", verbosity=0)
    ensure_keys()
    services.move_revocation_mark()

    def act() -> None:
        with transaction.atomic():
            services.move_revocation_mark()

    def act_on_record() -> None:
        with transaction.atomic():
            services.move_revocation_mark()
            record_event(
                action="execution.ended",
                resource=Resource(kind="execution", name="0198c5a1-7f3e-7c44-9d55-3f2f6a1c8e10"),
                outcome="succeeded",
                data={"attempt": 1, "worker": "worker@host", "code": None},
            )

    without = [measure_cpu_us(act, times=TRANSACTIONS) for _ in range(REPEATS)]
    with_event = [measure_cpu_us(act_on_record, times=TRANSACTIONS) for _ in range(REPEATS)]
    missing = rows - AuditEvent.objects.count()
    for start in range(0, missing, 10_000):
        AuditEvent.objects.bulk_create(
            [
                AuditEvent(
                    action="execution.ended", resource_kind="execution", resource_name=str(n), outcome="succeeded"
                )
                for n in range(start, min(start + 10_000, missing))
            ]
        )
    began = time.process_time()
    sealed = 0
    while batch := services.seal_events():
        sealed += batch
    sealing = (time.process_time() - began) / sealed * 1e6
    assert not UnsealedEvent.objects.exists()
    services.sign_chain(interval=timedelta(0))
    verified = verify()
    recorder, waits = DenialRecorder(), []
    for number in range(DENIALS):
        denial = Denial(
            code="security.access_denied",
            door=Door.HTTP,
            remote_address=f"192.0.{number // 250}.{number % 250}",
            principal=None,
            kind="request",
            subject="GET /",
        )
        began = time.perf_counter()
        recorder.submit(denial).result()
        waits.append((time.perf_counter() - began) * 1e3)
        time.sleep(DENIAL_PAUSE_SECONDS)
    waits.sort()
    return {
        "events": sealed,
        "transaction_cpu_us": {
            "without": round(statistics.median(without)),
            "with": round(statistics.median(with_event)),
        },
        "sealing_cpu_us_an_event": round(sealing, 1),
        "verify": verified,
        "console_ms": measure_console(),
        "first_denial_ms": {"p50": round(waits[len(waits) // 2], 2), "p95": round(waits[int(len(waits) * 0.95)], 2)},
    }


def verify() -> dict[str, float]:
    """What ``manage.py verify_audit`` takes for all of it, in a process of its own.

    Raises:
        AssertionError: it finds something.
    """
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, "manage.py", "verify_audit"], cwd=PROJECT_ROOT, stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return {
        "seconds": round(time.perf_counter() - began, 1),
        "cpu_seconds": round(usage.ru_utime + usage.ru_stime, 1),
        "peak_memory_mb": round(usage.ru_maxrss / 1024, 1),
    }


def measure_console() -> dict[str, float]:
    """The console's list of events, asked for in this process: the median of ``REPEATS``, in milliseconds."""
    from django.test import Client  # noqa: PLC0415  # the data folder is set first

    from security.models import Account  # noqa: PLC0415  # as above

    operator = Account.objects.create_superuser(username="operator", password=None)
    browser = Client(SERVER_NAME="localhost")
    browser.force_login(operator)

    def ask(query: str) -> float:
        began = time.perf_counter()
        answer = browser.get(f"{AUDIT_PAGE}{query}")
        assert answer.status_code == 200, answer.status_code
        return (time.perf_counter() - began) * 1e3

    asked = {name: [ask(query) for _ in range(REPEATS)] for name, query in AUDIT_QUERIES.items()}
    return {name: round(statistics.median(times), 1) for name, times in asked.items()}


def measure_cpu_us(function: Callable[[], None], *, times: int) -> float:
    """CPU of this process for one call, in microseconds."""
    began = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - began) / times * 1e6


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="events to seal and verify (default %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mcp-audit-") as folder:
        os.environ["MCP_DATA_DIR"] = str(Path(folder) / "var")
        os.environ["DJANGO_SETTINGS_MODULE"] = "mcp_site.settings"
        Path(folder, "var").mkdir(mode=0o700)
        figures = measure(rows=options.rows)
    print(msgspec.json.format(msgspec.json.encode(figures)).decode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
