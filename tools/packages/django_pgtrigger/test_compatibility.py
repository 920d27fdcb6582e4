"""django-pgtrigger: triggers that migrations create."""

import pgtrigger
import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction

from tools.packages.django_pgtrigger.ledger.models import Entry

pytestmark = pytest.mark.django_db(transaction=True)


def triggers():
    """Return the names of the triggers on the table of entries."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tgname FROM pg_trigger "
            "WHERE tgrelid = 'ledger_entry'::regclass AND NOT tgisinternal"
        )
        return [name for (name,) in cursor.fetchall()]


def test_migration_creates_a_trigger_that_prevents_deletion(expire_tokens):
    entry = Entry.objects.create(amount=7)
    expire_tokens()

    with pytest.raises(ProgrammingError, match="Cannot delete"):
        entry.delete()

    assert [name.split("_")[1] for name in triggers()] == ["kept"]
    assert Entry.objects.count() == 1


def test_trigger_is_ignored_only_within_the_context_manager(expire_tokens):
    """Pgtrigger wraps the execution of each statement on the connection."""
    Entry.objects.create(amount=7)
    expire_tokens()

    with transaction.atomic(), pgtrigger.ignore("ledger.Entry:kept"):
        Entry.objects.all().delete()

    assert Entry.objects.count() == 0
    entry = Entry.objects.create(amount=8)
    with pytest.raises(ProgrammingError):
        entry.delete()


def test_command_installs_triggers_after_token_expiry(expire_tokens, capsys):
    call_command("pgtrigger", "uninstall")
    assert triggers() == []
    expire_tokens()

    call_command("pgtrigger", "install")
    call_command("pgtrigger", "ls")

    assert len(triggers()) == 1
    assert "INSTALLED" in capsys.readouterr().out


def test_makemigrations_detects_no_changes(capsys):
    """Pgtrigger extends the schema editor, which the engine inherits from Django."""
    call_command("makemigrations", "ledger", dry_run=True)

    assert "No changes detected" in capsys.readouterr().out
