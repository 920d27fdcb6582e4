"""django-tenants: schemas are created, migrated, queried and dropped."""

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
    """Create two tenants with their schemas, and drop them afterwards."""
    created = []
    for name in ("north", "south"):
        created.append(Customer.objects.create(schema_name=name, name=name))
        Domain.objects.create(
            tenant=created[-1], domain=f"{name}.example.com", is_primary=True
        )
    yield created
    connection.set_schema_to_public()
    for tenant in Customer.objects.all():
        tenant.delete()


def test_host_name_selects_the_schema_after_token_expiry(
    tenants, client, expire_tokens
):
    for tenant in tenants:
        with tenant_context(tenant):
            Note.objects.create(text=f"of {tenant.name}")
    expire_tokens()

    north = client.get("/", headers={"host": "north.example.com"})
    expire_tokens()
    south = client.get("/", headers={"host": "south.example.com"})

    assert isinstance(connections["default"], LakebaseMixin)
    assert north.content == b"of north"
    assert south.content == b"of south"


def test_migrate_schemas_works_after_token_expiry(tenants, expire_tokens, capsys):
    north, _ = tenants
    expire_tokens()

    call_command("migrate_schemas", "notes", "zero", schema_name="north")
    assert not tables(north)
    call_command("migrate_schemas", tenant=True)

    assert tables(north) == ["notes_note"]


def tables(tenant):
    """Return the tables of the notes in *tenant*'s schema."""
    with tenant_context(tenant):
        names = connection.introspection.table_names()
    return [name for name in names if name.startswith("notes")]


def test_deleting_a_tenant_drops_only_its_schema(tenants, expire_tokens):
    north, _ = tenants
    expire_tokens()

    north.delete()

    assert not schema_exists("north")
    assert schema_exists("south")
