"""
Extensions that a role can create without being a superuser, as on the service.

The service marks these extensions as trusted in their control files; without the mark,
a migration that creates PostGIS fails with "permission denied to create extension".
Before PostgreSQL 18, the folder of the control files follows from the path of the
program alone, so the emulator runs a copy of the program in a folder with its own
control files and with links to everything else, which takes 0.03 s and 9 MB at each
start; a copy of the shared files takes 1.8 s and 50 MB. The control files name the
installed scripts.
"""

import os
import shutil
import subprocess
from pathlib import Path

# Extensions that the service trusts and PostgreSQL does not trust by default.
TRUSTED = ("address_standardizer*", "autoinc", "bloom", "earthdistance", "postgis*")


def make_server_program(folder: Path, prefix: Path) -> Path:
    """
    Copy the server program from *folder* to *prefix*, and return the program to run.

    Returns the original program if no extension needs a change, if pg_config cannot
    be run, or if the copy cannot be executed.
    """
    original = folder / "postgres"
    folders = _get_installation_folders(original.resolve().parent)
    if not folders:
        return original
    programs, share, libraries = folders
    untrusted = _find_untrusted(share / "extension")
    if not untrusted:
        return original
    shutil.rmtree(prefix, ignore_errors=True)
    top = Path(os.path.commonpath(folders))
    program = prefix / programs.relative_to(top) / "postgres"
    program.parent.mkdir(parents=True)
    shutil.copy(original, program)
    (prefix / libraries.relative_to(top)).symlink_to(libraries)
    _link_share(share, prefix / share.relative_to(top), untrusted)
    _make_readable(prefix)
    # The file system of *prefix* may forbid execution (noexec).
    return program if os.access(program, os.X_OK) else original


def _get_installation_folders(folder: Path) -> list[Path]:
    """Return the folders of programs, shared files and libraries, from pg_config."""
    command = [str(folder / "pg_config"), "--bindir", "--sharedir", "--pkglibdir"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return []
    return [Path(line) for line in result.stdout.splitlines()]


def _find_untrusted(folder: Path) -> list[Path]:
    """Return the control files of extensions that only the service trusts."""
    found = [file for name in TRUSTED for file in folder.glob(f"{name}.control")]
    return [file for file in found if "trusted = true" not in file.read_text()]


def _link_share(share: Path, target: Path, untrusted: list[Path]) -> None:
    target.mkdir(parents=True)
    for entry in share.iterdir():
        if entry.name != "extension":
            (target / entry.name).symlink_to(entry)
    scripts, controls = share / "extension", target / "extension"
    controls.mkdir()
    for file in scripts.glob("*.control"):
        text = f"{file.read_text()}\ndirectory = '{scripts}'\n"
        if file in untrusted:
            text += "trusted = true\n"
        (controls / file.name).write_text(text)


def _make_readable(prefix: Path) -> None:
    """Let the server's account read *prefix*, whatever the umask is."""
    for folder, _, files in os.walk(prefix):
        Path(folder).chmod(0o755)
        for file in (Path(folder, name) for name in files):
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444)
