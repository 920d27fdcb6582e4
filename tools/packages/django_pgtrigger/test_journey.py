"""django-pgtrigger: triggers that migrations make, guarding rows."""

import pgtrigger
import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction

from tools.packages.django_pgtrigger.ledger.models import Entry

pytestmark = pytest.mark.django_db(transaction=True)


def triggers():
    """Return the names of the ledger's triggers."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger "
            "WHERE tgrelid = 'ledger_entry'::regclass AND NOT tgisinternal"
        )
        return [name for (name,) in cursor.fetchall()]


def test_a_migration_brings_the_trigger(outlive_token):
    """And it refuses what it is to refuse."""
    entry = Entry.objects.create(amount=7)
    outlive_token()

    with pytest.raises(ProgrammingError, match="Cannot delete"):
        entry.delete()

    assert [name.split("_")[1] for name in triggers()] == ["kept"]
    assert Entry.objects.count() == 1


def test_triggers_are_ignored_for_a_while(outlive_token):
    """By a hook in the connection that each cursor goes through."""
    Entry.objects.create(amount=7)
    outlive_token()

    with transaction.atomic(), pgtrigger.ignore("ledger.Entry:kept"):
        Entry.objects.all().delete()

    assert Entry.objects.count() == 0
    entry = Entry.objects.create(amount=8)
    with pytest.raises(ProgrammingError):
        entry.delete()


def test_triggers_are_removed_and_installed(outlive_token, capsys):
    """By the command, which finds its way past the end of a token."""
    call_command("pgtrigger", "uninstall")
    assert triggers() == []
    outlive_token()

    call_command("pgtrigger", "install")
    call_command("pgtrigger", "ls")

    assert len(triggers()) == 1
    assert "INSTALLED" in capsys.readouterr().out


def test_a_new_trigger_makes_a_migration(capsys):
    """The schema editor is ours by inheritance, so pgtrigger can extend it."""
    call_command("makemigrations", "ledger", dry_run=True)

    assert "No changes detected" in capsys.readouterr().out
