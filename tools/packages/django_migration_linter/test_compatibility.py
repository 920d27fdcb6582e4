"""django-migration-linter: it recognises PostgreSQL by the word in ENGINE."""

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)


def lint(capsys, **options):
    """Return the exit status and the output for the app *shop*."""
    try:
        call_command("lintmigrations", include_apps=["shop"], no_cache=True, **options)
    except SystemExit as exc:
        return exc.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_unsafe_migration_is_reported(capsys, expire_tokens):
    """It adds a column without a default, and an index that locks the table."""
    expire_tokens()

    status, shown = lint(capsys)

    assert status == 1
    assert "0001_initial)... OK" in shown
    assert "0002_unsafe)... ERR" in shown
    # Only the PostgreSQL analyser has this rule.
    assert "CREATE INDEX locks table" in shown


def test_applied_and_unapplied_migrations_are_told_apart(capsys):
    """The linter reads the table django_migrations."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE name = '0002_unsafe'")

    applied, _ = lint(capsys, applied_migrations=True)
    unapplied, _ = lint(capsys, unapplied_migrations=True)

    assert (applied, unapplied) == (0, 1)


def test_engine_without_postgresql_in_its_name_needs_an_option(capsys, monkeypatch):
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django_lakebase")

    with pytest.raises(ValueError, match="django_lakebase"):
        lint(capsys)
    status, shown = lint(capsys, sql_analyser="postgresql")

    assert status == 1
    assert "CREATE INDEX locks table" in shown
