"""Tools and their runs as a Django app."""

from __future__ import annotations

from django.apps import AppConfig


class ToolsConfig(AppConfig):
    name = "tools"
    verbose_name = "Tools and runs"

    def ready(self) -> None:
        import tools.checks  # noqa: F401  # registers them
        from security.domain.audit_actions import register_audit_actions
        from security.domain.resources import ResourceKind, register_resource_kind
        from tools.domain.recorded_actions import RECORDED_ACTIONS
        from tools.selectors.catalog import find_tool_resource

        register_audit_actions(*RECORDED_ACTIONS)
        register_resource_kind(
            ResourceKind(
                name="tool",
                summary="A tool, by its name. Nobody owns one; operators label them.",
                example="tool:text.count_words",
                find=find_tool_resource,
            )
        )
        register_resource_kind(
            ResourceKind(
                name="execution",
                summary="A run, by its id. Whoever asked for it owns it.",
                example="execution:01a1fa78-65e1-76b4-b530-821efc884487",
            )
        )
