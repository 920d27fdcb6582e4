"""
The directory that holds everything: made, locked, and taken away again.

It is locked as long as its owner or a process of its server lives, however they end.
The next start removes the throw-away ones whose lock is free.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
import time
from pathlib import Path
from typing import IO, Self

from .postgres.binaries import LocalError

PREFIX = "lakebase-local-"
MARK = "lakebase-local.lock"
# Seconds that the server of a killed run may take to end.
ENDS_WITHIN = 10.0


class Directory:
    """A directory of ours, locked for this process."""

    def __init__(self, path: Path, lock: IO[str], *, is_kept: bool) -> None:
        self.path, self.is_kept = path, is_kept
        self._lock = lock

    @property
    def lock(self) -> int:
        """The file descriptor of the lock, for the server to hold too."""
        return self._lock.fileno()

    @classmethod
    def temporary(cls) -> Self:
        """Make a throw-away directory, and remove those that dead runs left."""
        _remove_leftovers()
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        path.chmod(_mode())
        # Locked before it has the name by which others find it.
        early = path / f"{MARK}.new"
        lock = _locked(early)
        early.rename(path / MARK)
        return cls(path, lock, is_kept=False)

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
            return cls(path, _locked(path / MARK), is_kept=True)
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


def _locked(file: Path, patience: float = ENDS_WITHIN) -> IO[str]:
    """Open and lock *file*; wait *patience* seconds for a dead owner's server."""
    lock = file.open("a+")
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() < deadline and not _owner_lives(lock):
                time.sleep(0.05)
                continue
            lock.close()
            raise LocalError(
                f"{file.parent} is in use by another lakebase-local. Stop that one, or "
                "use another --data."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock


def _owner_lives(lock: IO[str]) -> bool:
    lock.seek(0)
    owner = lock.read()
    if not owner:
        return False
    try:
        os.kill(int(owner), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _mode() -> int:
    # As root the server runs as another account, which must pass through here.
    return 0o711 if os.geteuid() == 0 else 0o700


def _remove_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, LocalError):
            if path.stat().st_uid == os.geteuid() and (path / MARK).exists():
                Directory(path, _locked(path / MARK, 0.0), is_kept=False).close()
