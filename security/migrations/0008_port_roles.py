"""What the built-in roles may do with ports."""

from django.db import migrations

GRANTS = [
    ("agent", "ports.*", "port:*@own"),
    ("viewer", "ports.list", "port:*"),
    ("viewer", "ports.check", "port:*"),
]
DESCRIPTIONS = {
    "agent": "Sees and runs every tool, sees its own executions, leases ports.",
    "viewer": "Sees every tool, execution and leased port, runs nothing.",
}


def add_port_grants(apps, schema_editor):
    Role = apps.get_model("security", "Role")
    Grant = apps.get_model("security", "Grant")
    for name, description in DESCRIPTIONS.items():
        Role.objects.filter(name=name, is_builtin=True).update(description=description)
    for name, action_pattern, resource_pattern in GRANTS:
        for role in Role.objects.filter(name=name, is_builtin=True):
            Grant.objects.get_or_create(
                role=role, effect="allow", action_pattern=action_pattern, resource_pattern=resource_pattern
            )


def remove_port_grants(apps, schema_editor):
    Grant = apps.get_model("security", "Grant")
    for name, action_pattern, resource_pattern in GRANTS:
        Grant.objects.filter(
            role__name=name,
            role__is_builtin=True,
            action_pattern=action_pattern,
            resource_pattern=resource_pattern,
        ).delete()


class Migration(migrations.Migration):
    dependencies = [("security", "0007_port_leases")]

    operations = [migrations.RunPython(add_port_grants, remove_port_grants)]
