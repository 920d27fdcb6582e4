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


def trusting_program(folder: Path, tree: Path) -> Path:
    """
    Return the server's program to run instead of the one in *folder*, made in *tree*.

    It is that one itself where nothing is to be trusted, or where the copy could not
    be run.
    """
    own = folder / "postgres"
    places = _places(own.resolve().parent)
    if not places:
        return own
    programs, share, libraries = places
    untrusted = _untrusted(share / "extension")
    if not untrusted:
        return own
    shutil.rmtree(tree, ignore_errors=True)
    top = Path(os.path.commonpath(places))
    program = tree / programs.relative_to(top) / "postgres"
    program.parent.mkdir(parents=True)
    shutil.copy(own, program)
    (tree / libraries.relative_to(top)).symlink_to(libraries)
    _link_share(share, tree / share.relative_to(top), untrusted)
    _let_read(tree)
    # Not so where the file system lets no program run.
    return program if os.access(program, os.X_OK) else own


def _places(folder: Path) -> list[Path]:
    """Return the folders of programs, shared files and libraries, if they are told."""
    command = [str(folder / "pg_config"), "--bindir", "--sharedir", "--pkglibdir"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603
    except (OSError, subprocess.CalledProcessError):
        return []
    return [Path(line) for line in told.stdout.splitlines()]


def _untrusted(folder: Path) -> list[Path]:
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


def _let_read(tree: Path) -> None:
    """Open *tree* to the server's account, whatever our umask is."""
    for folder, _, files in os.walk(tree):
        Path(folder).chmod(0o755)
        for file in (Path(folder, name) for name in files):
            if not file.is_symlink():
                file.chmod(file.stat().st_mode | 0o444)
