"""Server programs, started as users start them, and clients that send requests."""

import collections
import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from django_lakebase.local.client import LocalLakebase

TOP = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
# Timeouts in seconds, which no passing test reaches.
STARTS_WITHIN, ROTATES_WITHIN, ENDS_WITHIN, ANSWERS_WITHIN = 60.0, 90.0, 30.0, 40.0
ASKS_EVERY = 0.05
SITE = {
    "DJANGO_SETTINGS_MODULE": "tests.projects.site.settings",
    "PYTHONUNBUFFERED": "1",
}

# The lifetime of a token in seconds.
TTL = 3.0

Facts = dict[str, Any]


class Program:
    """A program with its child processes, and the lines that they have printed."""

    def __init__(
        self, command: list[str], env: dict[str, str], cwd: Path = TOP
    ) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **SITE, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A new process group, so that remaining children are noticed.
            start_new_session=True,
        )
        self.lines: list[str] = []
        self._said = threading.Condition()
        self._is_silent = False
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            with self._said:
                self.lines.append(line.rstrip())
                self._said.notify_all()
        with self._said:
            self._is_silent = True
            self._said.notify_all()

    @property
    def output(self) -> str:
        """All that it has printed."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until *times* lines have matched; return their first groups."""
        with self._said:
            self._said.wait_for(
                lambda: self._is_silent or len(self._found(pattern)) >= times,
                STARTS_WITHIN,
            )
            found = self._found(pattern)
        assert len(found) >= times, f"no {pattern!r} in:\n{self.output}"
        return found

    def _found(self, pattern: str) -> list[str]:
        return [match[1] for line in self.lines if (match := re.search(pattern, line))]

    def end(self) -> int:
        """Stop the program as a process manager does; return its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, within: float = ENDS_WITHIN) -> int:
        """Wait until the program and its children have exited."""
        status = self.process.wait(within)
        # The pipe is closed when its last process exits.
        self._reader.join(ENDS_WITHIN)
        assert self._is_silent, f"a child is still running. Output:\n{self.output}"
        return status

    def kill(self) -> None:
        """Kill the program and its children, whatever the test has done."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()
        # pytest shows it if the test fails.
        print(self.output)


@contextlib.contextmanager
def started(command: list[str], cwd: Path = TOP, /, **env: str) -> Iterator[Program]:
    """Run *command* in the folder *cwd* until the block ends."""
    program = Program(command, env, cwd)
    try:
        yield program
    finally:
        program.kill()


class Load:
    """Clients that send requests all the time, and the answers."""

    def __init__(self, ask: Callable[[], Facts], clients: int = 4) -> None:
        self.answers: list[Facts] = []
        self.failures: list[str] = []
        self._ask = ask
        self._is_over = threading.Event()
        self._changed = threading.Condition()
        self._clients = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        self._started_at = time.monotonic()
        for client in self._clients:
            client.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for client in self._clients:
            client.join()
        self.seconds = time.monotonic() - self._started_at

    def _run(self) -> None:
        while not self._is_over.is_set():
            try:
                answer = self._ask()
            except Exception as exc:  # noqa: BLE001 - the test asserts on it.
                self._note(self.failures, repr(exc))
            else:
                self._note(self.answers, answer)
            # Leave one core to the server.
            self._is_over.wait(ASKS_EVERY)

    def _note(self, notes: list[Any], note: object) -> None:
        with self._changed:
            notes.append(note)
            self._changed.notify_all()

    def wait_until(self, is_enough: Callable[[], bool]) -> None:
        """Wait until *is_enough* is true; fail at the first failed request."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self.failures) or is_enough(), ROTATES_WITHIN
            )
            assert not self.failures, "\n".join(self.failures)
            assert is_enough(), f"only {self.credentials()} were seen"

    def wait_until_rotated(self, processes: int, rotations: int = 2) -> None:
        """Wait until *processes* have each had *rotations* new credentials."""
        self.wait_until(
            lambda: (
                sum(len(seen) > rotations for seen in self.credentials().values())
                >= processes
            )
        )

    def credentials(self) -> dict[int, set[str]]:
        """Return the credentials that each process has logged in with."""
        seen = collections.defaultdict(set)
        for facts in list(self.answers):
            seen[facts["pid"]].add(facts["expires_at"])
        return seen


def get(port: int, path: str) -> bytes:
    """Return the body of the page at *path*, over a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERS_WITHIN)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == http.client.OK, f"{answer.status}: {body.decode()}"
        return body


def fetcher(port: int, path: str) -> Callable[[], Facts]:
    """Return a function that fetches the facts at *path*."""

    def ask() -> Facts:
        facts: Facts = json.loads(get(port, path))
        return facts

    return ask


def shared_sessions(answers: list[Facts]) -> set[int]:
    """Return the server sessions that more than one process has used."""
    users = collections.defaultdict(set)
    for facts in answers:
        users[facts["session"]].add(facts["pid"])
    return {session for session, pids in users.items() if len(pids) > 1}


def assert_no_stampede(local: LocalLakebase, load: Load, processes: int) -> None:
    """Check that processes log in once and fetch about one credential per rotation."""
    counted = local.fetch_counters()
    assert counted["requests"]["/oidc/v1/token"] == processes, counted
    # No process refreshes before half of the lifetime, unless a token was rejected.
    each = 2 + load.seconds / (TTL / 2)
    most = processes * each + counted["rejections"]
    assert processes < counted["credentials_issued"] <= most, counted


def wait_until(is_so: Callable[[], object]) -> None:
    """Wait until *is_so* returns a true value."""
    deadline = time.monotonic() + ENDS_WITHIN
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(ASKS_EVERY)


def wait_until_disconnected(local: LocalLakebase) -> None:
    """Wait until the last connection to *local* has ended."""
    wait_until(lambda: local.fetch_counters()["open_connections"] == 0)
