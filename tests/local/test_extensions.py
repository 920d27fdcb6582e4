"""Extensions that a role may create without being a superuser, as on the service."""

import os

import psycopg
import pytest

from django_lakebase.local.errors import LocalError
from django_lakebase.local.postgres.binaries import find_binaries
from django_lakebase.local.postgres.extensions import TRUSTED, make_server_program


@pytest.fixture
def system_binaries():
    """Return the folder of the programs of the system's PostgreSQL."""
    try:
        return find_binaries("system").folder
    except LocalError as exc:
        pytest.skip(str(exc))


def skip_unless_available(connection, name):
    """Skip the test if the server has no extension called *name*."""
    known = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
    if (name,) not in known:
        pytest.skip(f"the emulator's PostgreSQL has no {name}")


def test_role_without_superuser_creates_an_extension_trusted_by_the_service(connect):
    with connect() as connection:
        skip_unless_available(connection, "bloom")
        connection.execute("CREATE EXTENSION bloom")
        connection.execute("DROP EXTENSION bloom")


def test_role_without_superuser_cannot_create_an_untrusted_extension(connect):
    with connect() as connection:
        skip_unless_available(connection, "dblink")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="superuser"):
            connection.execute("CREATE EXTENSION dblink")


def test_extension_that_postgresql_trusts_can_be_created(connect):
    """PostgreSQL finds the extension's scripts, which stay in the system's folders."""
    with connect() as connection:
        skip_unless_available(connection, "hstore")
        connection.execute("CREATE EXTENSION hstore")
        assert connection.execute("SELECT 'a=>1'::hstore -> 'a'").fetchone() == ("1",)
        connection.execute("DROP EXTENSION hstore")


def test_server_program_is_copied_again_and_readable_with_a_strict_umask(
    system_binaries, tmp_path
):
    """The copy leaves the files of the system's PostgreSQL unchanged."""
    folder = tmp_path / "program"
    umask = os.umask(0o077)
    try:
        make_server_program(system_binaries, folder)
        program = make_server_program(system_binaries, folder)
    finally:
        os.umask(umask)
    if program == system_binaries / "postgres":
        pytest.skip("the system's PostgreSQL has no extension to be trusted")
    [controls] = tmp_path.glob("program/**/extension")

    assert program.is_relative_to(tmp_path)
    assert program.stat().st_mode & 0o777 == 0o755
    assert controls.stat().st_mode & controls.parent.stat().st_mode & 0o777 == 0o755
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in controls.iterdir())
    assert not program.is_symlink()
    assert {file.suffix for file in controls.iterdir()} == {".control"}
    assert any(controls.glob(f"{name}.control") for name in TRUSTED)


def test_server_program_is_not_copied_without_pg_config(tmp_path):
    """Then only the extensions that PostgreSQL itself trusts can be created."""
    assert make_server_program(tmp_path, tmp_path / "program") == tmp_path / "postgres"


def test_server_program_is_not_copied_if_there_is_no_extension_to_trust(tmp_path):
    (tmp_path / "share/extension").mkdir(parents=True)
    pg_config = tmp_path / "pg_config"
    pg_config.write_text(
        f"#!/bin/sh\nprintf '%s\\n' {tmp_path} {tmp_path}/share {tmp_path}\n"
    )
    pg_config.chmod(0o755)

    assert make_server_program(tmp_path, tmp_path / "program") == tmp_path / "postgres"
