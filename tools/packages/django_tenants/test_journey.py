"""django-tenants: a schema is made, migrated, served and dropped."""

import pytest
from django.core.management import call_command
from django.db import connection, connections
from django_tenants.utils import schema_exists, tenant_context

from django_lakebase.base import LakebaseMixin
from example_project.notes.models import Note
from tools.packages.django_tenants.customers.models import Customer, Domain

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def tenants():
    """Give two tenants, each with a schema, and take them away."""
    made = []
    for name in ("north", "south"):
        made.append(Customer.objects.create(schema_name=name, name=name))
        Domain.objects.create(
            tenant=made[-1], domain=f"{name}.example.com", is_primary=True
        )
    yield made
    connection.set_schema_to_public()
    for tenant in Customer.objects.all():
        tenant.delete()


def test_tenants_have_rows_of_their_own(tenants, client, outlive_token):
    """By the host name of a request, and with another token than their schemas."""
    for tenant in tenants:
        with tenant_context(tenant):
            Note.objects.create(text=f"of {tenant.name}")
    outlive_token()

    north = client.get("/", headers={"host": "north.example.com"})
    outlive_token()
    south = client.get("/", headers={"host": "south.example.com"})

    assert isinstance(connections["default"], LakebaseMixin)
    assert north.content == b"of north"
    assert south.content == b"of south"


def test_migrate_schemas_migrates_each(tenants, outlive_token, capsys):
    """Back and forth."""
    north, _ = tenants
    outlive_token()

    call_command("migrate_schemas", "notes", "zero", schema_name="north")
    assert not tables(north)
    call_command("migrate_schemas", tenant=True)

    assert tables(north) == ["notes_note"]


def tables(tenant):
    """Return the tables of *tenant*'s own notes."""
    with tenant_context(tenant):
        names = connection.introspection.table_names()
    return [name for name in names if name.startswith("notes")]


def test_a_tenants_schema_goes_with_it(tenants, outlive_token):
    """And the other's stays."""
    north, _ = tenants
    outlive_token()

    north.delete()

    assert not schema_exists("north")
    assert schema_exists("south")
