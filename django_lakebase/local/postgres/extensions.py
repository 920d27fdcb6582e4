"""
The extensions that a role may create without being a superuser, as on the service.

The service marks them as trusted in their control files. Those of the system's
PostgreSQL are not ours to change, and PostgreSQL looks for them relative to its own
program: so the server runs from a copy of it, amid links to all the rest and control
files of our own. Scripts and libraries stay where they are.
"""

import os
import shutil
import subprocess
from pathlib import Path

# Those that the service has and PostgreSQL does not trust by itself.
TRUSTED = ("address_standardizer*", "autoinc", "bloom", "earthdistance", "postgis*")


def make_server_program(folder: Path, prefix: Path) -> Path:
    """
    Return the server's program to run instead of the one in *folder*, made in *prefix*.

    It is that one itself where nothing is to be trusted, or where the copy could not
    be run.
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
    # Not so where the file system lets no program run.
    return program if os.access(program, os.X_OK) else original


def _get_installation_folders(folder: Path) -> list[Path]:
    """Return the folders of programs, shared files and libraries, if pg_config says."""
    command = [str(folder / "pg_config"), "--bindir", "--sharedir", "--pkglibdir"]
    try:
        result = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return []
    return [Path(line) for line in result.stdout.splitlines()]


def _find_untrusted(folder: Path) -> list[Path]:
    """Return the control files of what is to be trusted and is not."""
    found = [file for name in TRUSTED for file in folder.glob(f"{name}.control")]
    return [file for file in found if "trusted = true" not in file.read_text()]


def _link_share(share: Path, own: Path, untrusted: list[Path]) -> None:
    own.mkdir(parents=True)
    for entry in share.iterdir():
        if entry.name != "extension":
            (own / entry.name).symlink_to(entry)
    scripts, controls = share / "extension", own / "extension"
    controls.mkdir()
    for file in scripts.glob("*.control"):
        text = f"{file.read_text()}\ndirectory = '{scripts}'\n"
        if file in untrusted:
            text += "trusted = true\n"
        (controls / file.name).write_text(text)


def _make_readable(prefix: Path) -> None:
    """Open *prefix* to the server's account, whatever our umask is."""
    for folder, _, files in os.walk(prefix):
        Path(folder).chmod(0o755)
        for file in (Path(folder, name) for name in files):
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444)
