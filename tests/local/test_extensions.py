"""What the service lets ordinary roles create, the local Lakebase lets them create."""

import os

import psycopg
import pytest

from django_lakebase.local.errors import LocalError
from django_lakebase.local.postgres.binaries import find_binaries
from django_lakebase.local.postgres.extensions import TRUSTED, make_server_program


@pytest.fixture
def system():
    """Give the folder of the system's programs."""
    try:
        return find_binaries("system").folder
    except LocalError as exc:
        pytest.skip(str(exc))


def needs(connection, name):
    """Skip where the server has no extension of this *name*."""
    known = connection.execute("SELECT name FROM pg_available_extensions").fetchall()
    if (name,) not in known:
        pytest.skip(f"the local Lakebase's PostgreSQL has no {name}")


def test_a_role_creates_what_the_service_trusts(dial):
    """It is no superuser, and needs none to help."""
    with dial() as connection:
        needs(connection, "bloom")
        connection.execute("CREATE EXTENSION bloom")
        connection.execute("DROP EXTENSION bloom")


def test_a_role_creates_nothing_else(dial):
    """PostgreSQL refuses the rest as it always does."""
    with dial() as connection:
        needs(connection, "dblink")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="superuser"):
            connection.execute("CREATE EXTENSION dblink")


def test_what_is_trusted_anyway_is_still_found(dial):
    """Their scripts are looked for where they are."""
    with dial() as connection:
        needs(connection, "hstore")
        connection.execute("CREATE EXTENSION hstore")
        assert connection.execute("SELECT 'a=>1'::hstore -> 'a'").fetchone() == ("1",)
        connection.execute("DROP EXTENSION hstore")


def test_the_system_s_own_files_stay_as_they_are(system, tmp_path):
    """The copy is amid links and control files, made anew, and readable to all."""
    umask = os.umask(0o077)
    try:
        for _ in range(2):
            program = make_server_program(system, tmp_path / "program")
    finally:
        os.umask(umask)
    if program == system / "postgres":
        pytest.skip("there is nothing to be trusted here")
    [own] = tmp_path.glob("program/**/extension")

    assert program.is_relative_to(tmp_path)
    assert program.stat().st_mode & 0o777 == 0o755
    assert own.stat().st_mode & own.parent.stat().st_mode & 0o777 == 0o755
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in own.iterdir())
    assert not program.is_symlink()
    assert {file.suffix for file in own.iterdir()} == {".control"}
    assert any(own.glob(f"{name}.control") for name in TRUSTED)


def test_an_installation_that_does_not_tell_its_folders_is_run_as_it_is(tmp_path):
    """Without pg_config no more is trusted than PostgreSQL trusts."""
    assert make_server_program(tmp_path, tmp_path / "program") == tmp_path / "postgres"


def test_an_installation_with_nothing_to_trust_is_run_as_it_is(tmp_path):
    """No copy is made for nothing."""
    (tmp_path / "share/extension").mkdir(parents=True)
    tell = tmp_path / "pg_config"
    tell.write_text(
        f"#!/bin/sh\nprintf '%s\\n' {tmp_path} {tmp_path}/share {tmp_path}\n"
    )
    tell.chmod(0o755)

    assert make_server_program(tmp_path, tmp_path / "program") == tmp_path / "postgres"
