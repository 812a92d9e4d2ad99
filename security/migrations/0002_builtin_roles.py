"""The built-in roles and what they grant, as of this migration; what they are since is ``security/domain/builtin_roles.py``."""

from django.db import migrations

ROLES = [
    ("operator", "Everything.", [("*", "*:*")]),
    (
        "agent",
        "Sees and runs every tool, sees its own executions.",
        [
            ("tools.view", "tool:*"),
            ("tools.execute", "tool:*"),
            ("executions.view", "execution:*@own"),
            ("executions.cancel", "execution:*@own"),
            ("executions.retry", "execution:*@own"),
        ],
    ),
    (
        "viewer",
        "Sees every tool and execution, runs nothing.",
        [("tools.view", "tool:*"), ("executions.view", "execution:*")],
    ),
]


def create_builtin_roles(apps, schema_editor):
    Role = apps.get_model("security", "Role")
    Grant = apps.get_model("security", "Grant")
    for name, description, grants in ROLES:
        role, _ = Role.objects.update_or_create(
            name=name, defaults={"description": description, "is_builtin": True}
        )
        for action_pattern, resource_pattern in grants:
            Grant.objects.get_or_create(
                role=role, effect="allow", action_pattern=action_pattern, resource_pattern=resource_pattern
            )


def delete_builtin_roles(apps, schema_editor):
    apps.get_model("security", "Role").objects.filter(is_builtin=True).delete()


class Migration(migrations.Migration):
    dependencies = [("security", "0001_initial")]

    operations = [migrations.RunPython(create_builtin_roles, delete_builtin_roles)]
