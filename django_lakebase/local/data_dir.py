"""
The directory that holds all files of the emulator.

How it works. The emulator locks a file in the directory (``flock``), and its PostgreSQL
servers inherit the file descriptor. The kernel therefore keeps the lock until the last
of these processes has ended, and releases it even after ``kill -9``. The next start
removes temporary directories that no process has locked.
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
# Seconds to wait for the server of a killed run to end.
END_TIMEOUT = 10.0


class DataDir:
    """A directory that this process has locked."""

    def __init__(self, path: Path, lock: IO[str], *, is_persistent: bool) -> None:
        self.path, self.is_persistent = path, is_persistent
        self._lock = lock

    @property
    def lock(self) -> int:
        """The file descriptor of the lock, which servers inherit."""
        return self._lock.fileno()

    @classmethod
    def create_temporary(cls) -> Self:
        """Create a temporary directory; remove those that killed runs left behind."""
        _remove_leftovers()
        path = Path(tempfile.mkdtemp(prefix=PREFIX))
        path.chmod(_directory_mode())
        # Lock the file before renaming it: other processes look for the final name.
        unlisted = path / f"{LOCK_FILE}.new"
        lock = _open_locked(unlisted)
        unlisted.rename(path / LOCK_FILE)
        return cls(path, lock, is_persistent=False)

    @classmethod
    def open_persistent(cls, path: Path) -> Self:
        """
        Lock *path*, and create it if it does not exist.

        Raises LocalError if it is in use, cannot be written to, or has files that
        lakebase-local did not make.
        """
        path = path.expanduser().absolute()
        try:
            path.mkdir(parents=True, exist_ok=True)
            has_lock_file = (path / LOCK_FILE).exists()
            if not has_lock_file and any(path.iterdir()):
                raise LocalError(
                    f"{path} was not made by lakebase-local and contains other files. "
                    "Give --data a new or empty directory."
                )
            if path.stat().st_uid != os.geteuid():
                raise LocalError(
                    f"{path} belongs to another user. Give --data a directory that you "
                    "own."
                )
            if not has_lock_file:
                path.chmod(_directory_mode())
            return cls(path, _open_locked(path / LOCK_FILE), is_persistent=True)
        except OSError as exc:
            raise LocalError(
                f"--data {path} cannot be used: {exc.strerror}. Give it a directory "
                "that you can write to."
            ) from exc

    def close(self) -> None:
        """Release the lock; delete the directory if it is temporary."""
        if not self.is_persistent:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _open_locked(file: Path, timeout: float = END_TIMEOUT) -> IO[str]:
    """
    Open and lock *file*; raises LocalError if it is in use.

    If its owner is dead, wait up to *timeout* seconds for the owner's server to end.
    """
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
                "give --data another directory."
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
    # As root, PostgreSQL runs as another account, which must be able to pass through.
    return 0o711 if os.geteuid() == 0 else 0o700


def _remove_leftovers() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError, LocalError):
            if path.stat().st_uid == os.geteuid() and (path / LOCK_FILE).exists():
                DataDir(
                    path, _open_locked(path / LOCK_FILE, 0.0), is_persistent=False
                ).close()
