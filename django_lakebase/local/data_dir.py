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

from .errors import LocalError

PREFIX = "lakebase-local-"
LOCK_FILE = "lakebase-local.lock"
# Seconds that the server of a killed run may take to end.
END_TIMEOUT = 10.0


class DataDir:
    """A directory of ours, locked for this process."""

    def __init__(self, path: Path, lock: IO[str], *, is_persistent: bool) -> None:
        self.path, self.is_persistent = path, is_persistent
        self._lock = lock

    @property
    def lock(self) -> int:
        """The file descriptor of the lock, for the server to hold too."""
        return self._lock.fileno()

    @classmethod
    def create_temporary(cls) -> Self:
        """Make a throw-away directory, and remove those that dead runs left."""
        _remove_leftovers()
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        path.chmod(_directory_mode())
        # Locked before it has the name by which others find it.
        unnamed = path / f"{LOCK_FILE}.new"
        lock = _open_locked(unnamed)
        unnamed.rename(path / LOCK_FILE)
        return cls(path, lock, is_persistent=False)

    @classmethod
    def open_persistent(cls, path: Path) -> Self:
        """Take *path*, which is ours, empty or new; raises LocalError."""
        path = path.expanduser().absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            has_lock_file = (path / LOCK_FILE).exists()
            if not has_lock_file and any(path.iterdir()):
                raise LocalError(
                    f"{path} holds other files, and was not made by lakebase-local. "
                    "Give --data a new or empty directory."
                )
            if path.stat().st_uid != os.geteuid():
                raise LocalError(
                    f"{path} belongs to another user. Give --data a directory of your "
                    "own."
                )
            if not has_lock_file:
                path.chmod(_directory_mode())
            return cls(path, _open_locked(path / LOCK_FILE), is_persistent=True)
        except OSError as exc:
            raise LocalError(
                f"--data {path} cannot be used: {exc.strerror}. Give it a directory "
                "that you may write to."
            ) from exc

    def close(self) -> None:
        """Remove a throw-away directory; unlock a persistent one."""
        if not self.is_persistent:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _open_locked(file: Path, timeout: float = END_TIMEOUT) -> IO[str]:
    """Open and lock *file*; wait *timeout* seconds for a dead owner's server."""
    lock = file.open("a+")
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() < deadline and not _owner_is_alive(lock):
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


def _owner_is_alive(lock: IO[str]) -> bool:
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


def _directory_mode() -> int:
    # As root the server runs as another account, which must pass through here.
    return 0o711 if os.geteuid() == 0 else 0o700


def _remove_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, LocalError):
            if path.stat().st_uid == os.geteuid() and (path / LOCK_FILE).exists():
                DataDir(
                    path, _open_locked(path / LOCK_FILE, 0.0), is_persistent=False
                ).close()
