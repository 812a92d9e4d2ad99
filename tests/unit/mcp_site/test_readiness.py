"""What ``/readyz`` says when something is missing, and what asking costs."""

from __future__ import annotations

import asyncio
import json
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from celery import current_app
from django.test import AsyncClient
from django.utils import timezone

from mcp_site.monitoring import readiness
from mcp_site.monitoring.readiness import CHECK_SECONDS, CheckFailed, Prober
from tools.models import WorkerLease


@pytest.mark.django_db(transaction=True)
async def test_without_broker_and_workers_it_is_503_and_names_them(
    async_client: AsyncClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Another test of this process may have brought the broker up.
    monkeypatch.setattr(current_app.conf, "broker_write_url", f"redis+socket://{tmp_path}/none.sock")
    answer = await async_client.get("/readyz")
    report = json.loads(answer.content)
    assert (answer.status_code, report["status"]) == (503, "unavailable")
    assert report["checks"]["database"]["status"] == "ok"
    broker, workers = report["checks"]["broker"], report["checks"]["workers"]
    assert (broker["status"], broker["error"]) == ("failed", "unreachable")
    assert (workers["status"], workers["error"]) == ("failed", "none")
    assert broker["since"].endswith("Z")
    assert "no-store" in answer.headers["Cache-Control"]


@pytest.mark.django_db(transaction=True)
def test_only_leases_that_hold_count_as_workers() -> None:
    with pytest.raises(CheckFailed):
        readiness.check_workers()
    now = timezone.now()
    for name, seconds in (("a", 10), ("b", 10), ("gone", -1)):
        WorkerLease.objects.create(name=name, host="h", pid=1, expires_at=now + timedelta(seconds=seconds))
    assert readiness.check_workers() == 2


async def test_health_asks_nothing(async_client: AsyncClient) -> None:
    # No database is allowed in this test.
    answer = await async_client.get("/healthz")
    assert (answer.status_code, answer.content) == (200, b'{"status":"ok"}')
    assert (await async_client.post("/healthz")).status_code == 405


async def test_a_check_that_hangs_is_cut_off_and_keeps_nobody() -> None:
    release = threading.Event()
    prober = Prober(checks={"broker": release.wait, "database": lambda: None})
    try:
        asked_at = asyncio.get_running_loop().time()
        found = await asyncio.gather(*(prober.get_readiness() for _ in range(100)))
        assert asyncio.get_running_loop().time() - asked_at < CHECK_SECONDS + 1
        assert {answer.checks["broker"].error for answer in found} == {"timeout"}
        assert found[0].checks["database"].status == "ok"
    finally:
        release.set()


async def test_all_who_ask_at_once_share_one_answer() -> None:
    asked: list[int] = []
    prober = Prober(checks={"database": lambda: asked.append(1)})
    await asyncio.gather(*(prober.get_readiness() for _ in range(100)))
    assert len(asked) == 1


async def test_since_is_kept_while_it_fails_and_forgotten_after() -> None:
    is_broken = True

    def check() -> None:
        if is_broken:
            raise CheckFailed("none")

    prober = Prober(checks={"workers": check}, reuse_seconds=-1)
    first = (await prober.get_readiness()).checks["workers"].since
    assert (await prober.get_readiness()).checks["workers"].since == first != ""
    is_broken = False
    found = await prober.get_readiness()
    assert (found.is_ready, found.checks["workers"].since) == (True, "")


async def test_a_process_that_drains_is_not_ready() -> None:
    prober = Prober(checks={"database": lambda: None})
    prober.is_draining = True
    found = await prober.get_readiness()
    assert (found.is_ready, found.status) == (False, "draining")
