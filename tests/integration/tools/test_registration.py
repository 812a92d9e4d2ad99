"""Bringing declared tools into the database: new ones, changed ones, ones that are gone and come back."""

from __future__ import annotations

import logging

import pytest

from security.selectors import get_account_principal
from tests.factories import create_service
from tools import services
from tools.authoring import Declaration, tool
from tools.models import Execution, Tool, ToolVersion
from tools.services.acceptance import ExecutionRequest

pytestmark = pytest.mark.django_db

Registry = dict[str, Declaration]


def declare(version: str = "1.0.0", *, description: str = "Shout.", name: str = "demo.shout") -> None:
    """Declare a version of a tool, as an app's ``mcp_tools.py`` does; one that is declared is replaced."""

    def shout(text: str) -> str:
        return text.upper()

    tool(name=name, version=version, description=description)(shout)


@pytest.fixture
def registry(declared: Registry) -> Registry:
    """An empty registry."""
    declared.clear()
    return declared


def get_states(name: str = "demo.shout") -> dict[str, str]:
    return dict(ToolVersion.objects.filter(tool__name=name).values_list("version", "state"))


def get_current(name: str = "demo.shout") -> str:
    current = Tool.objects.get(name=name).current_version
    assert current is not None
    return current.version


def test_a_new_tool_is_registered_with_its_whole_definition(registry: Registry) -> None:
    declare()
    done = services.synchronise_tools()
    assert (done.added, done.quarantined, done.missing) == (["demo.shout@1.0.0"], [], [])
    version = ToolVersion.objects.get(tool__name="demo.shout")
    specification = registry["demo.shout@1.0.0"].specification
    assert version.definition_hash == specification.definition_hash
    assert version.input_schema == specification.input_schema
    assert version.output_schema == specification.output_schema
    assert (version.description, version.entry_point) == ("Shout.", specification.entry_point)
    assert (version.state, version.state_reason) == ("available", "")
    assert version.tool.state == "enabled"
    assert get_current() == "1.0.0"


def test_doing_it_again_changes_nothing(registry: Registry) -> None:
    declare()
    services.synchronise_tools()
    before = (list(Tool.objects.values()), list(ToolVersion.objects.values()))
    done = services.synchronise_tools()
    assert (done.added, done.quarantined) == ([], [])
    assert (list(Tool.objects.values()), list(ToolVersion.objects.values())) == before


def test_a_new_version_stands_beside_the_old_one_and_is_current(registry: Registry) -> None:
    declare("1.0.0")
    services.synchronise_tools()
    declare("1.10.0")
    declare("1.9.0")
    assert services.synchronise_tools().added == ["demo.shout@1.10.0", "demo.shout@1.9.0"]
    assert get_states() == {"1.0.0": "available", "1.9.0": "available", "1.10.0": "available"}
    assert get_current() == "1.10.0"


def test_a_pre_release_is_current_only_where_there_is_no_release(registry: Registry) -> None:
    declare("2.0.0-rc.1")
    services.synchronise_tools()
    assert get_current() == "2.0.0-rc.1"
    declare("1.0.0")
    services.synchronise_tools()
    assert get_current() == "1.0.0"


def test_a_changed_definition_under_the_same_version_is_quarantined_not_taken(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    declare(description="Shout.")
    services.synchronise_tools()
    before = ToolVersion.objects.values("description", "definition_hash", "input_schema").get()
    registry.clear()
    declare(description="Whisper.")
    with caplog.at_level(logging.ERROR):
        assert services.synchronise_tools().quarantined == ["demo.shout@1.0.0"]
    assert "demo.shout@1.0.0" in caplog.text
    version = ToolVersion.objects.get()
    assert version.state == "quarantined"
    assert version.state_reason
    assert ToolVersion.objects.values("description", "definition_hash", "input_schema").get() == before
    # Restored as it was, it is what was registered.
    registry.clear()
    declare(description="Shout.")
    services.synchronise_tools()
    assert get_states() == {"1.0.0": "available"}


def test_of_a_quarantined_version_an_older_one_runs_on(registry: Registry) -> None:
    declare("1.0.0")
    declare("2.0.0")
    services.synchronise_tools()
    assert get_current() == "2.0.0"
    registry.clear()
    declare("1.0.0")
    declare("2.0.0", description="Whisper.")
    services.synchronise_tools()
    assert get_states() == {"1.0.0": "available", "2.0.0": "quarantined"}
    assert get_current() == "1.0.0"


def test_code_that_is_gone_makes_a_version_unavailable_and_coming_back_available(registry: Registry) -> None:
    declare("1.0.0")
    declare("2.0.0")
    services.synchronise_tools()
    registry.clear()
    declare("1.0.0")
    assert services.synchronise_tools().missing == ["demo.shout@2.0.0"]
    assert get_states() == {"1.0.0": "available", "2.0.0": "unavailable"}
    assert get_current() == "1.0.0"
    registry.clear()
    services.synchronise_tools()
    assert set(get_states().values()) == {"unavailable"}
    assert get_current() == "2.0.0", "one that cannot run is still seen"
    declare("1.0.0")
    declare("2.0.0")
    services.synchronise_tools()
    assert set(get_states().values()) == {"available"}
    assert get_current() == "2.0.0"


def test_what_no_installed_app_runs_is_left_alone(registry: Registry) -> None:
    declare()
    services.synchronise_tools()
    ToolVersion.objects.update(adapter="provider")
    registry.clear()
    assert services.synchronise_tools().missing == []
    assert get_states() == {"1.0.0": "available"}


def test_a_switch_set_by_an_operator_stays(registry: Registry) -> None:
    declare()
    services.synchronise_tools()
    Tool.objects.update(state=Tool.State.DISABLED, disabled_reason="under repair")
    declare("2.0.0")
    services.synchronise_tools()
    found = Tool.objects.get()
    assert (found.state, found.disabled_reason) == ("disabled", "under repair")


def test_the_builtin_tools_are_registered(declared: Registry) -> None:
    services.synchronise_tools()
    names = set(Tool.objects.values_list("name", flat=True))
    assert names >= {"text.count_words", "text.search", "files.list", "files.read", "files.search", "http.request"}


def test_a_run_keeps_the_version_that_it_was_accepted_with(registry: Registry) -> None:
    declare("1.0.0")
    services.synchronise_tools()
    accepted = services.accept_execution(
        request=ExecutionRequest(
            principal=get_account_principal(account=create_service()),
            tool="demo.shout",
            version=None,
            input={"text": "a"},
            mode=Execution.Mode.WAIT,
            trace_id="0" * 32,
        )
    )
    declare("2.0.0")
    services.synchronise_tools()
    services.run_execution(execution_id=accepted.execution_id, worker="worker-1@host")
    execution = Execution.objects.select_related("version").get()
    assert (execution.state, execution.version.version) == ("succeeded", "1.0.0")


def test_a_tool_that_was_never_declared_is_not_there(registry: Registry) -> None:
    services.synchronise_tools()
    assert not Tool.objects.exists()
