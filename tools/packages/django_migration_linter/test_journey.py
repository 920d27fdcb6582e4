"""django-migration-linter: it finds PostgreSQL's rules by the word in ENGINE."""

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)


def lint(capsys, **options):
    """Return the exit status and what is printed for the app *shop*."""
    try:
        call_command("lintmigrations", include_apps=["shop"], no_cache=True, **options)
    except SystemExit as exc:
        return exc.code, capsys.readouterr().out
    return 0, capsys.readouterr().out


def test_an_unsafe_migration_is_named(capsys, outlive_token):
    """For a column without a default, and for an index that locks the table."""
    outlive_token()

    status, shown = lint(capsys)

    assert status == 1
    assert "0001_initial)... OK" in shown
    assert "0002_hurried)... ERR" in shown
    # A rule of PostgreSQL's alone.
    assert "CREATE INDEX locks table" in shown


def test_only_new_migrations_are_linted(capsys):
    """It reads django_migrations for that."""
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM django_migrations WHERE name = '0002_hurried'")

    applied, _ = lint(capsys, applied_migrations=True)
    waiting, _ = lint(capsys, unapplied_migrations=True)

    assert (applied, waiting) == (0, 1)


def test_the_short_name_needs_an_option(capsys, monkeypatch):
    """ENGINE without the word is refused, unless the analyser is named."""
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django_lakebase")

    with pytest.raises(ValueError, match="django_lakebase"):
        lint(capsys)
    status, shown = lint(capsys, sql_analyser="postgresql")

    assert status == 1
    assert "CREATE INDEX locks table" in shown
