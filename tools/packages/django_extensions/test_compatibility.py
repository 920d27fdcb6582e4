"""django-extensions: the commands that use the database."""

import psycopg
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from tools.packages.notes.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("style", ["keyvalue", "kwargs", "uri", "pgpass"])
def test_sqldsn_prints_the_connection_without_a_token(capsys, style, assert_no_secret):
    connection.ensure_connection()
    call_command("sqldsn", style=style)

    shown = capsys.readouterr().out
    assert connection.settings_dict["NAME"] in shown
    assert connection.settings_dict["USER"] in shown
    assert_no_secret(shown)


def test_sqlcreate_prints_sql_without_a_password(capsys, assert_no_secret):
    call_command("sqlcreate")

    shown = capsys.readouterr().out
    assert f"CREATE DATABASE {connection.settings_dict['NAME']}" in shown
    assert_no_secret(shown)


def test_sqldiff_compares_models_with_tables(capsys, expire_tokens):
    """It recognises PostgreSQL by the last part of ENGINE."""
    expire_tokens()
    call_command("sqldiff", "notes", dense_output=True)
    equal = capsys.readouterr().out
    execute("ALTER TABLE notes_note DROP COLUMN written_at")
    try:
        call_command("sqldiff", "notes", dense_output=True)
    finally:
        execute("ALTER TABLE notes_note ADD written_at timestamptz")
    different = capsys.readouterr().out

    assert "written_at" not in equal
    assert 'ADD COLUMN "written_at" timestamp with time zone' in different


def execute(sql):
    """Run *sql* on the connection."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_shell_plus_queries_models_after_token_expiry(capsys, expire_tokens):
    Note.objects.create(text="seen in the shell")
    expire_tokens()

    call_command("shell_plus", "--plain", "--command", "print(Note.objects.get())")

    assert "seen in the shell" in capsys.readouterr().out


def test_reset_schema_drops_tables_after_token_expiry(expire_tokens):
    """It uses Django's connection, and so a current token."""
    execute("CREATE SCHEMA spare CREATE TABLE spare.gone (id int)")
    expire_tokens()

    call_command("reset_schema", interactive=False, schema="spare")

    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('spare.gone')")
        assert cursor.fetchone() == (None,)
    execute("DROP SCHEMA spare")


@pytest.fixture
def libpq(local, monkeypatch):
    """Let connections that bypass the engine find the local server."""
    connection.ensure_connection()
    monkeypatch.setenv("PGHOSTADDR", local.env["LAKEBASE_HOSTADDR"])


@pytest.mark.parametrize("command", ["reset_db", "drop_test_database"])
def test_commands_that_bypass_django_have_no_password(libpq, command):
    """They read PASSWORD from the settings, which is empty."""
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        call_command(command, interactive=False, dbname="spare")


def test_commands_that_bypass_django_use_a_token_in_pgpassword(
    libpq, local, monkeypatch
):
    token = local.issue_token(local.facts["service_principal"])
    monkeypatch.setenv("PGPASSWORD", token)

    call_command("reset_db", interactive=False, dbname="test_spare")
    created = databases()
    call_command("drop_test_database", interactive=False, dbname="spare")

    assert "test_spare" in created
    assert "test_spare" not in databases()


def databases():
    """Return the names of the server's databases."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return {name for (name,) in cursor.fetchall()}


def test_reset_db_rejects_an_engine_that_is_not_in_the_setting(monkeypatch):
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django_lakebase")

    with pytest.raises(CommandError, match="Unknown database engine"):
        call_command("reset_db", interactive=False)
