"""
The directory that holds everything: made, locked, and taken away again.

A throw-away one is locked as long as its owner lives, however it ends: the next start
removes those whose lock is free.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

from .postgres import LocalError

PREFIX = "lakebase-local-"
MARK = "lakebase-local.lock"


class Directory:
    """A directory of ours, locked for this process."""

    def __init__(self, path: Path, *, is_kept: bool) -> None:
        self.path, self.is_kept = path, is_kept
        self._lock = (path / MARK).open("a+")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise LocalError(
                f"{path} is in use by another lakebase-local. Stop that one, or use "
                "another --data."
            ) from None

    @classmethod
    def temporary(cls) -> Self:
        """Make a throw-away directory, and remove those that dead runs left."""
        _remove_leftovers()
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        path.chmod(_mode())
        return cls(path, is_kept=False)

    @classmethod
    def kept(cls, path: Path) -> Self:
        """Take *path*, which is ours, empty or new; raises LocalError."""
        path = path.expanduser().absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            has_mark = (path / MARK).exists()
            if not has_mark and any(path.iterdir()):
                raise LocalError(
                    f"{path} holds other files, and was not made by lakebase-local. "
                    "Give --data a new or empty directory."
                )
            if path.stat().st_uid != os.geteuid():
                raise LocalError(
                    f"{path} belongs to another user. Give --data a directory of your "
                    "own."
                )
            if not has_mark:
                path.chmod(_mode())
            return cls(path, is_kept=True)
        except OSError as exc:
            raise LocalError(
                f"--data {path} cannot be used: {exc.strerror}. Give it a directory "
                "that you may write to."
            ) from exc

    def close(self) -> None:
        """Remove a throw-away directory; let a kept one go."""
        if not self.is_kept:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _mode() -> int:
    # As root the server runs as another account, which must pass through here.
    return 0o711 if os.geteuid() == 0 else 0o700


def _remove_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, LocalError):
            if path.stat().st_uid == os.geteuid() and (path / MARK).exists():
                Directory(path, is_kept=False).close()
