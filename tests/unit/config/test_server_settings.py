"""Schema and time limits, as server settings of the startup packet."""

import pytest

from django_lakebase.config.server_settings import server_setting

from .test_resolve import ENVIRONMENT, settings_error, target

APP = {**ENVIRONMENT, "PGAPPNAME": "notes", "PGUSER": "a1b2-c3d4"}


def test_schema_is_first_in_the_search_path():
    found = target(OPTIONS={"schema": "Notes"})

    assert found.schema == "Notes"
    assert found.libpq_options == '-c search_path="Notes",public'


def test_schema_comes_from_the_environment_of_the_database():
    """Unless the settings name another database."""
    environ = {**ENVIRONMENT, "LAKEBASE_SCHEMA": "notes"}
    other = {"endpoint": "projects/o/branches/b/endpoints/e"}

    assert target(environ).schema == "notes"
    assert target(environ, OPTIONS={"schema": "own"}).schema == "own"
    assert target(environ, OPTIONS=other).schema == ""


def test_public_is_not_repeated():
    assert target(OPTIONS={"schema": "public"}).libpq_options == (
        '-c search_path="public"'
    )


def test_special_characters_of_a_schema_are_escaped():
    """Twice: for libpq's options, and in the quoted identifier."""
    text = target(OPTIONS={"schema": 'a "b" \\c'}).libpq_options

    assert text == r'-c search_path="a\ ""b""\ \\c",public'


def test_auto_is_the_name_that_templates_use():
    found = target({**APP, "LAKEBASE_SCHEMA": "auto"})

    assert found.schema == "notes_schema_a1b2c3d4"


def test_auto_is_cut_off_as_postgresql_cuts_it_off():
    """Otherwise introspection would look for a schema that does not exist."""
    long = {**APP, "PGAPPNAME": "n" * 30, "PGUSER": "12345678-" * 5}

    assert target(long, OPTIONS={"schema": "auto"}).schema == (
        "n" * 30 + "_schema_" + ("12345678" * 4)[:25]
    )


@pytest.mark.parametrize("missing", ["PGAPPNAME", "PGUSER"])
def test_auto_needs_the_variables_of_the_platform(missing):
    environ = {**APP, "LAKEBASE_SCHEMA": "auto", missing: ""}

    text = settings_error(environ)

    assert 'LAKEBASE_SCHEMA is "auto"' in text
    assert f"and {missing} is not set" in text
    assert "set LAKEBASE_SCHEMA to the name of the schema" in text


@pytest.mark.parametrize("name", ["n" * 64, "ü" * 32, "pg_notes", "$user"])
def test_names_that_postgresql_does_not_accept_are_rejected(name):
    text = settings_error(OPTIONS={"schema": name})

    assert f'OPTIONS["schema"] is "{name}"' in text


@pytest.mark.parametrize("options", ["-c search_path=x", "--Search-Path=x"])
def test_search_path_in_options_contradicts_the_schema(options):
    text = settings_error(OPTIONS={"schema": "notes", "options": options})

    assert 'OPTIONS["schema"] is "notes": OPTIONS["options"] also sets' in text
    assert 'Remove search_path from OPTIONS["options"]' in text


def test_names_that_only_resemble_reserved_ones_are_accepted():
    assert target(OPTIONS={"schema": "PG_notes"}).schema == "PG_notes"


def test_search_path_in_a_variable_contradicts_the_schema():
    environ = {
        **ENVIRONMENT,
        "LAKEBASE_SCHEMA": "notes",
        "PGOPTIONS": "-csearch_path=x",
    }

    text = settings_error(environ)

    assert 'LAKEBASE_SCHEMA is "notes": PGOPTIONS also sets search_path' in text


def test_search_path_in_options_alone_is_allowed():
    """Projects that started from a template for Databricks Apps have it."""
    found = target(OPTIONS={"options": "-c search_path=notes"})

    assert (found.schema, found.libpq_options) == ("", "-c search_path=notes")


@pytest.mark.parametrize(
    ("value", "text"),
    [(30, "30000ms"), (0.5, "500ms"), ("30", "30000ms"), (" 1.5 ", "1500ms")],
)
def test_time_limits_are_in_seconds(value, text):
    own = {"statement_timeout": value, "idle_in_transaction_session_timeout": value}

    assert target(OPTIONS=own).libpq_options == (
        f"-c statement_timeout={text} -c idle_in_transaction_session_timeout={text}"
    )


def test_zero_means_no_time_limit():
    """It overrides a limit of the role or the database."""
    assert target(OPTIONS={"statement_timeout": 0}).libpq_options == (
        "-c statement_timeout=0ms"
    )


@pytest.mark.parametrize("value", [-1, "soon", True, float("nan"), []])
def test_invalid_time_limits_are_rejected(value):
    text = settings_error(OPTIONS={"statement_timeout": value})

    assert f'OPTIONS["statement_timeout"] is "{value}": this is not a time' in text


@pytest.mark.parametrize("value", [0.0001, 1e9])
def test_time_limits_that_the_server_cannot_store_are_rejected(value):
    text = settings_error(OPTIONS={"statement_timeout": value})

    assert "a time limit is from 0.001 to 2147484 seconds" in text


def test_same_time_limit_twice_is_rejected():
    own = {"statement_timeout": 5, "options": "-c statement_timeout=1min"}

    assert "also sets statement_timeout" in settings_error(OPTIONS=own)


@pytest.mark.parametrize("own", [{"schema": "notes"}, {"statement_timeout": 5}])
def test_pooler_would_ignore_server_settings(own):
    """PgBouncer is usually configured to drop them without an error."""
    native = {"HOST": "ep-a-pooler.example.com", "USER": "u", "PASSWORD": "p"}

    text = settings_error(OPTIONS=own, **native)

    assert "the host is a pooler" in text
    assert "without -pooler" in text


def test_own_server_settings_come_first():
    own = {"options": "-c work_mem=8MB", "schema": "notes"}

    assert target(OPTIONS=own).libpq_options == (
        '-c work_mem=8MB -c search_path="notes",public'
    )


def test_blanks_in_a_server_setting_are_escaped():
    assert server_setting("TimeZone", "a b\\c\td") == "-c TimeZone=a\\ b\\\\c\\\td"
