"""Ending a run and running it again from its page in the console, as a browser does."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from django.contrib.auth.models import Permission
from django.contrib.messages import get_messages
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from security.models import Account, AuditEvent
from tests.factories import allow, create_person, create_role, create_service, deny
from tests.runs import accept_run
from tools import services
from tools.domain.states import TERMINAL_STATES, ExecutionState
from tools.models import Execution, Tool, ToolVersion

pytestmark = pytest.mark.django_db

ACTIONS = ("cancel", "kill", "run_again")
CSRF_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@pytest.fixture(autouse=True)
def _tools() -> None:
    services.synchronise_tools()


@pytest.fixture
def agent() -> Account:
    return create_service(username="finder")


def run(account: Account) -> Execution:
    """A run that has succeeded."""
    execution = accept_run(account)
    services.run_execution(execution_id=execution.id, worker="worker-1@host")
    return Execution.objects.get(id=execution.id)


def bring_into(execution: Execution, state: ExecutionState, **fields: Any) -> None:
    finished_at = timezone.now() if state in TERMINAL_STATES else None
    Execution.objects.filter(id=execution.id).update(state=state.value, finished_at=finished_at, **fields)


def get_address(execution: Execution, action: str = "change") -> str:
    return reverse(f"admin:tools_execution_{action}", args=[execution.pk])


def find_offered(client: Client, execution: Execution) -> set[str]:
    page = client.get(get_address(execution)).content.decode()
    return {action for action in ACTIONS if get_address(execution, action) in page}


def do(client: Client, execution: Execution, action: str) -> Any:
    return client.post(get_address(execution, action), {"_form_submitted": "on"})


def get_told(response: Any) -> str:
    """The newest message; older ones wait for a page too."""
    *_, message = get_messages(response.wsgi_request)
    return f"{message.level_tag}: {message}"


UNCOUNTED = ["access.deny", "accounts.change", "console.sign_in"]
"""What is recorded of a look that was refused, and of the test's own signing in."""


def count_rows() -> tuple[int, int]:
    return Execution.objects.count(), AuditEvent.objects.exclude(action__in=UNCOUNTED).count()


def let_look(account: Account) -> Account:
    account.user_permissions.set(Permission.objects.filter(codename="view_execution"))
    return account


@pytest.mark.parametrize(("action", "mode"), [("cancel", "graceful"), ("kill", "kill")])
def test_a_waiting_run_is_ended_at_once(
    console: Client, operator: Account, agent: Account, action: str, mode: str
) -> None:
    execution = accept_run(agent)
    response = do(console, execution, action)
    assert (response.status_code, response.headers["HX-Redirect"]) == (200, get_address(execution))
    execution.refresh_from_db()
    assert execution.state == "cancelled"
    event = AuditEvent.objects.get(action="executions.cancel")
    assert (event.actor_id, event.actor_name, event.resource_name, event.outcome) == (
        operator.id,
        "operator",
        str(execution.id),
        mode,
    )
    assert len(event.trace_id) == 32
    assert "has ended, or is about to" in console.get(get_address(execution)).content.decode()
    assert find_offered(console, execution) == {"run_again"}


def test_of_a_running_one_the_wish_is_recorded_and_can_be_made_harder(console: Client, agent: Account) -> None:
    execution = accept_run(agent)
    bring_into(execution, ExecutionState.RUNNING, attempt=1, started_at=timezone.now())
    for action, mode, offered in (("cancel", "graceful", {"kill"}), ("kill", "kill", set[str]())):
        assert get_told(do(console, execution, action)).startswith("success")
        execution.refresh_from_db()
        assert (execution.state, execution.cancel_mode) == ("running", mode)
        assert find_offered(console, execution) == offered


def test_a_run_that_has_ended_is_run_again(console: Client, operator: Account, agent: Account) -> None:
    first = run(agent)
    response = do(console, first, "run_again")
    second = Execution.objects.exclude(id=first.id).get()
    assert response.headers["HX-Redirect"] == get_address(second)
    assert (second.retry_of_id, second.requested_by_id, second.state) == (first.id, operator.id, "queued")
    assert (second.version_id, second.input_json) == (first.version_id, first.input_json)
    page = console.get(response.headers["HX-Redirect"]).content.decode()
    assert f"This run repeats {first.id}." in page
    assert get_address(first) in page
    assert get_address(second) in console.get(get_address(first)).content.decode()
    services.run_execution(execution_id=second.id, worker="worker-1@host")
    second.refresh_from_db()
    assert second.output_json == first.output_json


@pytest.mark.parametrize("state", list(ExecutionState))
def test_what_can_be_done_is_offered(console: Client, agent: Account, state: ExecutionState) -> None:
    execution = accept_run(agent)
    bring_into(execution, state)
    assert find_offered(console, execution) == ({"run_again"} if state in TERMINAL_STATES else {"cancel", "kill"})


def test_what_cannot_be_run_now_is_not_offered_again(console: Client, agent: Account) -> None:
    execution = run(agent)
    for version_state in ("quarantined", "unavailable"):
        ToolVersion.objects.filter(id=execution.version_id).update(state=version_state)
        assert find_offered(console, execution) == set()
    ToolVersion.objects.filter(id=execution.version_id).update(state="available")
    assert find_offered(console, execution) == {"run_again"}
    Tool.objects.filter(id=execution.tool_id).update(state="disabled")
    assert find_offered(console, execution) == set()


OTHERS, OWN = "execution:*", "execution:*@own"
VIEW_TOOLS, EXECUTE = allow("tools.view", "tool:*"), allow("tools.execute", "tool:*")
VIEW, CANCEL, RETRY = (allow(f"executions.{action}", OTHERS) for action in ("view", "cancel", "retry"))


@pytest.mark.parametrize(
    ("grants", "of_waiting", "of_ended"),
    [
        ([], set(), set()),
        ([CANCEL], {"cancel", "kill"}, set()),
        ([VIEW, VIEW_TOOLS, EXECUTE, RETRY], set(), {"run_again"}),
        ([VIEW, VIEW_TOOLS, EXECUTE], set(), set()),
        ([VIEW, VIEW_TOOLS, RETRY], set(), set()),
        ([VIEW, EXECUTE, RETRY], set(), set()),
        ([VIEW_TOOLS, EXECUTE, RETRY], set(), set()),
        ([allow("executions.*", OWN), VIEW_TOOLS, EXECUTE], set(), set()),
        ([allow("*"), deny("executions.cancel", OTHERS)], set(), {"run_again"}),
        ([allow("*"), deny("tools.execute", "tool:text.*")], {"cancel", "kill"}, set()),
    ],
)
def test_the_roles_of_who_is_signed_in_decide(
    client: Client, agent: Account, grants: list[Any], of_waiting: set[str], of_ended: set[str]
) -> None:
    clerk = let_look(create_person(is_staff=True))
    clerk.roles.add(create_role(grants=grants))
    client.force_login(clerk)
    waiting, ended = accept_run(agent), run(agent)
    for execution, offered in ((waiting, of_waiting), (ended, of_ended)):
        assert find_offered(client, execution) == offered
        for action in set(ACTIONS) - offered:
            before = count_rows()
            response = do(client, execution, action)
            assert response.headers["HX-Redirect"] == get_address(execution)
            assert get_told(response).startswith(("error", "warning"))
            assert count_rows() == before
    for execution, state in ((waiting, "queued"), (ended, "succeeded")):
        execution.refresh_from_db()
        assert execution.state == state


def test_what_is_ones_own_can_be_ended_and_repeated_by_an_agents_role(client: Client) -> None:
    clerk = let_look(create_person(is_staff=True, roles=["agent"]))
    client.force_login(clerk)
    assert find_offered(client, accept_run(clerk)) == {"cancel", "kill"}
    assert find_offered(client, run(clerk)) == {"run_again"}
    assert find_offered(client, accept_run(create_service())) == set()


def test_a_superuser_without_roles_may_look_only(client: Client, agent: Account) -> None:
    client.force_login(Account.objects.create_superuser("root"))
    waiting, ended = accept_run(agent), run(agent)
    assert (find_offered(client, waiting), find_offered(client, ended)) == (set(), set())
    assert "tool.execution_not_found" in get_told(do(client, waiting, "kill"))
    assert "tool.execution_not_found" in get_told(do(client, ended, "run_again"))


def test_refusals_are_told_on_the_page(console: Client, agent: Account) -> None:
    waiting, ended = accept_run(agent), run(agent)
    assert get_told(do(console, ended, "kill")).startswith("warning")
    assert "tool.unavailable" in get_told(do(console, waiting, "run_again"))
    Tool.objects.filter(id=ended.tool_id).update(state="disabled", disabled_reason="Wrong <b>results</b>")
    before = count_rows()
    response = do(console, ended, "run_again")
    assert response.headers["HX-Redirect"] == get_address(ended)
    page = console.get(get_address(ended)).content.decode()
    assert "Wrong &lt;b&gt;results" in page
    assert "tool.unavailable" in page
    assert count_rows() == before


@pytest.mark.parametrize("action", ACTIONS)
def test_only_a_post_with_its_token_does_anything(operator: Account, agent: Account, action: str) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(operator)
    execution = run(agent) if action == "run_again" else accept_run(agent)
    before = count_rows()
    address = get_address(execution, action)
    dialog = browser.get(address)
    assert dialog.status_code == 200
    for method in (browser.get, browser.head):
        assert method(address, {"_form_submitted": "on"}).status_code == 200
    assert browser.post(address, {"_form_submitted": "on"}).status_code == 403
    assert count_rows() == before

    token = CSRF_TOKEN.findall(dialog.content.decode())[0]
    response = browser.post(address, {"_form_submitted": "on", "csrfmiddlewaretoken": token})
    assert response.headers["HX-Redirect"]
    assert count_rows() != before


@pytest.mark.parametrize("action", ACTIONS)
def test_who_may_not_look_may_not_act(client: Client, agent: Account, action: str) -> None:
    clerk = create_person(is_staff=True, roles=["operator"])
    execution = run(agent) if action == "run_again" else accept_run(agent)
    before = count_rows()
    assert do(client, execution, action).headers["Location"].startswith(reverse("admin:login"))
    client.force_login(clerk)
    assert do(client, execution, action).status_code == 403
    assert count_rows() == before
    let_look(clerk)
    assert do(client, execution, action).status_code == 200
    assert count_rows() != before


@pytest.mark.parametrize("identifier", [uuid.uuid4(), "nonsense"])
def test_a_run_that_there_is_not_has_no_actions(console: Client, identifier: object) -> None:
    for action in ACTIONS:
        address = reverse(f"admin:tools_execution_{action}", args=[identifier])
        assert console.post(address, {"_form_submitted": "on"}).status_code == 404
    assert console.get(reverse("admin:tools_execution_change", args=[identifier])).status_code == 302


def test_a_page_that_reads_itself_again_has_the_actions_in_a_part_of_its_own(console: Client, agent: Account) -> None:
    """Also where there are none: what is put in their place must find it."""
    execution = accept_run(agent)
    bring_into(execution, ExecutionState.RUNNING, cancel_mode="kill")
    page = console.get(get_address(execution)).content.decode()
    assert 'hx-select-oob="#page-actions"' in page
    assert page.count('id="page-actions"') == 1
    assert find_offered(console, execution) == set()
