"""Who has the role agent or viewer sees its own sessions, and ends them."""

from django.db import migrations

GRANTS = [("sessions.view", "session:*@own"), ("sessions.revoke", "session:*@own")]
ROLES = ["agent", "viewer"]


def grant_own_sessions(apps, schema_editor):
    Role = apps.get_model("security", "Role")
    Grant = apps.get_model("security", "Grant")
    for role in Role.objects.filter(name__in=ROLES, is_builtin=True):
        for action_pattern, resource_pattern in GRANTS:
            Grant.objects.get_or_create(
                role=role,
                effect="allow",
                action_pattern=action_pattern,
                resource_pattern=resource_pattern,
                conditions={},
            )


def take_own_sessions(apps, schema_editor):
    Grant = apps.get_model("security", "Grant")
    for action_pattern, resource_pattern in GRANTS:
        Grant.objects.filter(
            role__name__in=ROLES,
            role__is_builtin=True,
            action_pattern=action_pattern,
            resource_pattern=resource_pattern,
        ).delete()


class Migration(migrations.Migration):
    dependencies = [("security", "0011_grant_conditions_and_address_rules")]

    operations = [migrations.RunPython(grant_own_sessions, take_own_sessions)]
