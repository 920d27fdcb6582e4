"""
The process that runs an app's command and ends all processes of the app.

How it works. The emulator holds the other end of the standard input. The kernel closes
it however the emulator ends, even after ``kill -9``. This process then sends SIGTERM to
the command's process group, waits for all processes of the app, and sends SIGKILL to
those that are left after the timeout. On Linux it adopts processes whose parent has
ended, so that it finds each process of the app, whatever its group.

It is a separate program, and imports little so that it needs little memory.
"""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from django_lakebase.local import libc

# These reach this process if they are sent to all processes.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
NOT_FOUND = 127


class AppProcesses:
    """The processes of the app that *command* starts; *status* is that of *command*."""

    def __init__(self, command: Sequence[str]) -> None:
        libc.adopt_orphans()
        # `reap` collects the statuses of all processes. The object is kept, because a
        # deleted Popen collects the status of a command that has already ended.
        self._process = subprocess.Popen(  # noqa: S603 - the user's command, no shell.
            command,
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=lambda: libc.die_with_parent(signal.SIGKILL),  # noqa: PLW1509
        )
        self.status: int | None = None

    def reap(self) -> bool:
        """Collect the processes that have ended; return whether others are running."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return True
                if pid == self._process.pid:
                    self.status = os.waitstatus_to_exitcode(status)
                    self._process.returncode = self.status
        return False

    def terminate(self) -> None:
        """Send SIGTERM to the process group of the command."""
        self._signal_group(signal.SIGTERM)

    def kill(self) -> None:
        """
        Kill the command's process group and all children of this process.

        The children of a killed process become children of this one, which receives
        SIGCHLD at the same time. Call this method again then.
        """
        self._signal_group(signal.SIGKILL)
        for path in Path("/proc/self/task").glob("*/children"):
            for pid in path.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def _signal_group(self, number: signal.Signals) -> None:
        # macOS raises PermissionError if all processes of the group have ended.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)


class StopRequest:
    """Waits for SIGCHLD, and for the end of standard input or a signal to stop."""

    def __init__(self) -> None:
        self.is_received = False
        self._signals, write_end = os.pipe()
        os.set_blocking(write_end, False)
        signal.set_wakeup_fd(write_end)
        for number in (signal.SIGCHLD, *STOP_SIGNALS):
            # Ignored signals would stay ignored in the command.
            signal.signal(number, lambda *_: None)

    def wait(self, timeout: float | None) -> None:
        """Wait until something happens, or for *timeout* seconds."""
        sources = [self._signals] if self.is_received else [self._signals, 0]
        readable, _, _ = select.select(sources, [], [], timeout)
        if 0 in readable and not os.read(0, 1):
            self.is_received = True
        if self._signals in readable:
            received = os.read(self._signals, 4096)
            self.is_received |= any(number in received for number in STOP_SIGNALS)


def main(arguments: Sequence[str]) -> int:
    """
    Run a command until all its processes have ended; return its exit status.

    *arguments* are the seconds between SIGTERM and SIGKILL, and the command.
    """
    timeout, command = float(arguments[0]), arguments[1:]
    stop = StopRequest()
    try:
        processes = AppProcesses(command)
    except OSError as exc:
        text = f"lakebase-local: {command[0]} cannot be run: {exc.strerror}\n"
        sys.stderr.write(text)
        return NOT_FOUND
    kill_at: float | None = None
    while processes.reap():
        if kill_at is None and processes.status is not None:
            # As in a container, nothing outlives the command.
            kill_at = time.monotonic()
        elif kill_at is None and stop.is_received:
            processes.terminate()
            kill_at = time.monotonic() + timeout
        remaining = None if kill_at is None else kill_at - time.monotonic()
        if remaining is not None and remaining <= 0:
            processes.kill()
            remaining = None
        stop.wait(remaining)
    if sys.platform != "linux":
        # There, only the command is a child of this process.
        processes.kill()
    status = processes.status or 0
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
