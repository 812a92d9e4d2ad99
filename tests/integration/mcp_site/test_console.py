"""The console's first page, its frame and the schedule, as a browser uses them."""

from __future__ import annotations

import re
import shutil
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, IntervalSchedule, PeriodicTask

from protocol.models import Session
from security.models import Account
from tests.factories import create_person, create_service
from tests.queries import capture_queries
from tests.runs import accept_run
from tools import services
from tools.models import Execution, Tool

pytestmark = pytest.mark.django_db

ADDRESS = re.compile(r"""(?:src|href|action|hx-get|hx-post)\s*=\s*["']([^"']*)["']""")
HANDLER = re.compile(r"\son[a-z]+\s*=", re.IGNORECASE)


@pytest.fixture
def first_run() -> Iterator[Path]:
    folder = settings.MCP.data_dir / "first-run"
    folder.mkdir(parents=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def get_overview(client: Client) -> Any:
    response = client.get(reverse("admin:index"))
    assert response.status_code == 200
    return response


def get_figures(client: Client) -> dict[str, int | str]:
    return {figure.title: figure.value for figure in get_overview(client).context["figures"]}


def accept(agent: Account) -> Execution:
    services.synchronise_tools()
    return accept_run(agent)


def connect(agent: Account, **fields: Any) -> Session:
    return Session.objects.create(account=agent, credential_id=uuid.uuid4(), channel="c", client_name="shell", **fields)


def test_an_empty_server_has_a_first_page(console: Client) -> None:
    assert get_figures(console) == {
        "Connected sessions": 0,
        "Runs in 24 h": 0,
        "Error rate in 24 h": "0 %",
        "Running now": 0,
        "Queued now": 0,
        "Run time, p50": "none",
        "Time in queue, p50": "none",
        "Live workers": 0,
    }
    page = get_overview(console).content.decode()
    assert "Runs wait until one lives." in page
    assert "None yet" in page
    assert "Machine Context Protocol" in page


def test_the_first_page_says_what_goes_on(console: Client) -> None:
    agent = create_service(username="finder")
    connect(agent)
    connect(agent, ended_at=timezone.now())
    lost = connect(agent)
    Session.objects.filter(pk=lost.pk).update(seen_at=timezone.now() - timedelta(hours=1))
    services.take_lease(name="worker-1@host", host="host", pid=1)
    waiting, ended, failed, old = (accept(agent) for _ in range(4))
    services.run_execution(execution_id=ended.id, worker="worker-1@host")
    Execution.objects.filter(pk=failed.pk).update(state="timed_out", finished_at=timezone.now())
    Execution.objects.filter(pk=old.pk).update(
        created_at=timezone.now() - timedelta(hours=25), state="running", started_at=timezone.now()
    )
    start = timezone.now() - timedelta(minutes=1)
    Execution.objects.filter(pk=ended.pk).update(
        created_at=start, started_at=start + timedelta(seconds=2), finished_at=start + timedelta(seconds=5)
    )
    figures = get_figures(console)
    assert figures.pop("Time in queue, p50") != "none"
    assert figures == {
        "Connected sessions": 1,
        "Runs in 24 h": 3,
        "Error rate in 24 h": "50.0 %",
        "Running now": 1,
        "Queued now": 1,
        "Run time, p50": "3.00 s",
        "Live workers": 1,
    }
    response = get_overview(console)
    assert {share.label["text"]: share.count for share in response.context["shares"]} == {
        "queued": 1,
        "succeeded": 1,
        "timed out": 1,
    }
    page = response.content.decode()
    for execution in (waiting, ended, failed, old):
        assert reverse("admin:tools_execution_change", args=[execution.pk]) in page
    failures = next(figure for figure in response.context["figures"] if figure.title == "Error rate in 24 h")
    assert [row.pk for row in console.get(failures.url).context["cl"].result_list] == [failed.pk]


def test_the_first_page_asks_the_same_of_the_database_however_much_goes_on(console: Client) -> None:
    def count_queries() -> int:
        with capture_queries() as queries:
            get_overview(console)
        assert not [query for query in queries if "input_json" in query["sql"]]
        return len(queries)

    accept(create_service())
    count_queries()
    few = count_queries()
    for _ in range(15):
        accept(create_service())
    assert count_queries() == few


def test_secrets_of_the_first_start_are_named_until_they_are_deleted(console: Client, first_run: Path) -> None:
    secrets = {first_run / "operator-password": "correct-horse", first_run / "agent-api-key": "mcp_battery-staple"}
    for path, secret in secrets.items():
        path.write_text(secret)
    page = get_overview(console).content.decode()
    for path, secret in secrets.items():
        assert str(path) in page
        assert secret not in page
    for path in secrets:
        path.unlink()
    assert "first-run-files" not in get_overview(console).content.decode()
    shutil.rmtree(first_run)
    assert "first-run-files" not in get_overview(console).content.decode()


def test_staff_see_what_they_may(client: Client) -> None:
    clerk = create_person(is_staff=True)
    client.force_login(clerk)
    accept(create_service(username="finder"))
    page = get_overview(client)
    assert page.context["figures"] == []
    assert "finder" not in page.content.decode()
    for name in ("tools_execution", "tools_tool", "security_account", "protocol_session"):
        assert reverse(f"admin:{name}_changelist") not in page.content.decode()

    clerk.user_permissions.set(
        Permission.objects.filter(codename__in=["view_execution", "view_workerlease"], content_type__app_label="tools")
    )
    page = get_overview(client)
    assert "Connected sessions" not in {figure.title for figure in page.context["figures"]}
    assert len(page.context["figures"]) == 7
    assert reverse("admin:tools_execution_changelist") in page.content.decode()
    assert reverse("admin:tools_tool_changelist") not in page.content.decode()


def test_who_is_not_signed_in_sees_nothing(client: Client) -> None:
    for address in (reverse("admin:index"), reverse("admin:tools_execution_changelist")):
        assert client.get(address).headers["Location"].startswith(reverse("admin:login"))
    client.force_login(create_person())
    assert client.get(reverse("admin:index")).status_code == 302


def test_pages_fetch_nothing_from_elsewhere_and_have_no_inline_handlers(console: Client) -> None:
    execution = accept(create_service())
    addresses = [
        reverse("admin:index"),
        reverse("admin:tools_execution_changelist"),
        reverse("admin:tools_execution_change", args=[execution.pk]),
        reverse("admin:tools_tool_changelist"),
        reverse("admin:tools_tool_change", args=[Tool.objects.get(name="text.search").pk]),
        reverse("admin:protocol_session_changelist"),
        reverse("admin:tools_workerlease_changelist"),
        reverse("admin:django_celery_beat_periodictask_changelist"),
        reverse("admin:security_account_changelist"),
        reverse("admin:security_auditevent_changelist"),
    ]
    for address in addresses:
        page = console.get(address).content.decode()
        found = ADDRESS.findall(page)
        assert found
        assert not [each for each in found if each.startswith(("http:", "https:", "//"))], address
        assert not HANDLER.search(page), address


def test_the_consoles_own_files_are_served(client: Client) -> None:
    page = client.get(reverse("admin:login")).content.decode()
    for path in ("/static/mcp/icon.svg", "/static/mcp/console.css", "/static/mcp/console.js"):
        assert path in page
        assert client.get(path).status_code == 200


def test_the_schedule_is_looked_at_only(console: Client) -> None:
    every = IntervalSchedule.objects.create(every=5, period="seconds")
    nightly = CrontabSchedule.objects.create(minute="0", hour="4")
    task = PeriodicTask.objects.create(name="look after", task="tools.look_after_executions", interval=every)
    PeriodicTask.objects.create(name="nightly", task="tools.purge_executions", crontab=nightly)
    listed = console.get(reverse("admin:django_celery_beat_periodictask_changelist")).content.decode()
    assert "every 5 seconds" in listed
    assert "0 4 * * *" in listed
    address = reverse("admin:django_celery_beat_periodictask_change", args=[task.pk])
    assert "tools.look_after_executions" in console.get(address).content.decode()
    assert console.post(address, {"enabled": ""}).status_code == 403
    assert console.post(reverse("admin:django_celery_beat_periodictask_add"), {"name": "x"}).status_code == 403
    for action in ("run_tasks", "disable_tasks", "delete_selected"):
        console.post(
            reverse("admin:django_celery_beat_periodictask_changelist"),
            {"action": action, "_selected_action": [task.pk], "post": "yes"},
        )
    task.refresh_from_db()
    assert task.enabled
    for noise in ("intervalschedule", "crontabschedule", "solarschedule", "clockedschedule"):
        with pytest.raises(NoReverseMatch):
            reverse(f"admin:django_celery_beat_{noise}_changelist")
