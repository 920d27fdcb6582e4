"""django-extensions: the commands that look at the database."""

import psycopg
import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import connection

from tests.projects.app.models import Note

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.parametrize("style", ["keyvalue", "kwargs", "uri", "pgpass"])
def test_sqldsn_describes_the_connection_without_a_token(
    capsys, style, assert_no_secret
):
    """In each of its styles; there is no password that it could print."""
    connection.ensure_connection()
    call_command("sqldsn", style=style)

    shown = capsys.readouterr().out
    assert connection.settings_dict["NAME"] in shown
    assert connection.settings_dict["USER"] in shown
    assert_no_secret(shown)


def test_sqlcreate_writes_sql(capsys, assert_no_secret):
    """For the database; a role's password is not ours to give."""
    call_command("sqlcreate")

    shown = capsys.readouterr().out
    assert f"CREATE DATABASE {connection.settings_dict['NAME']}" in shown
    assert_no_secret(shown)


def test_sqldiff_compares_models_with_tables(capsys, outlive_token):
    """With PostgreSQL's rules, which it finds by the last part of ENGINE."""
    outlive_token()
    call_command("sqldiff", "app", dense_output=True)
    equal = capsys.readouterr().out
    execute("ALTER TABLE app_note DROP COLUMN written_at")
    try:
        call_command("sqldiff", "app", dense_output=True)
    finally:
        execute("ALTER TABLE app_note ADD written_at timestamptz")
    different = capsys.readouterr().out

    assert "written_at" not in equal
    assert 'ADD COLUMN "written_at" timestamp with time zone' in different


def execute(sql):
    """Run *sql* on the connection."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_shell_plus_knows_the_models(capsys, outlive_token):
    """And queries them with a current token."""
    Note.objects.create(text="seen in the shell")
    outlive_token()

    call_command("shell_plus", "--plain", "--command", "print(Note.objects.get())")

    assert "seen in the shell" in capsys.readouterr().out


def test_reset_schema_empties_the_schema(outlive_token):
    """Through Django's connection, so with a token."""
    execute("CREATE SCHEMA spare CREATE TABLE spare.gone (id int)")
    outlive_token()

    call_command("reset_schema", interactive=False, schema="spare")

    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regclass('spare.gone')")
        assert cursor.fetchone() == (None,)
    execute("DROP SCHEMA spare")


@pytest.fixture
def libpq(local, monkeypatch):
    """Let connections that know nothing of us find the local server."""
    connection.ensure_connection()
    monkeypatch.setenv("PGHOSTADDR", local.env["LAKEBASE_HOSTADDR"])


@pytest.mark.parametrize("command", ["reset_db", "drop_test_database"])
def test_commands_with_connections_of_their_own_have_no_password(libpq, command):
    """They read PASSWORD from the settings, where there is none."""
    with pytest.raises(psycopg.OperationalError, match="no password supplied"):
        call_command(command, interactive=False, dbname="spare")


def test_they_take_a_token_from_the_environment(libpq, local, monkeypatch):
    """In PGPASSWORD, as libpq reads it."""
    token = local.issue(local.facts["service_principal"])
    monkeypatch.setenv("PGPASSWORD", token)

    call_command("reset_db", interactive=False, dbname="test_spare")
    made = databases()
    call_command("drop_test_database", interactive=False, dbname="spare")

    assert "test_spare" in made
    assert "test_spare" not in databases()


def databases():
    """Return the names of the server's databases."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT datname FROM pg_database")
        return {name for (name,) in cursor.fetchall()}


def test_another_engine_is_unknown(monkeypatch):
    """Without the setting the commands say so, and do nothing."""
    monkeypatch.setitem(settings.DATABASES["default"], "ENGINE", "django_lakebase")

    with pytest.raises(CommandError, match="Unknown database engine"):
        call_command("reset_db", interactive=False)
