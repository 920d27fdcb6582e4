"""Discovery of PostgreSQL's programs."""

from django_lakebase.local.postgres.binaries import find_binaries


def test_folder_without_all_programs_is_skipped(tmp_path, monkeypatch):
    """Some machines link only the server into a folder of PATH, without its tools."""
    for name in ("initdb", "postgres"):
        program = tmp_path / name
        program.write_text("#!/bin/sh\necho 'initdb (PostgreSQL) 99.1'\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))

    assert find_binaries("auto").folder != tmp_path
