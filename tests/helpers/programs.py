"""Programs as users start them, and clients that keep them busy."""

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
# Seconds; none of them is waited for where all is well.
STARTS_WITHIN, ROTATES_WITHIN, ENDS_WITHIN, ANSWERS_WITHIN = 60.0, 90.0, 30.0, 40.0
ASKS_EVERY = 0.05
SITE = {
    "DJANGO_SETTINGS_MODULE": "tests.projects.site.settings",
    "PYTHONUNBUFFERED": "1",
}

# The life of a credential.
TTL = 3.0

Facts = dict[str, Any]


class Program:
    """A program and its children, with what they have said."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            cwd=TOP,
            env={**os.environ, **SITE, **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A process group, so that it is seen whether a child is left.
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
    def told(self) -> str:
        """All that it said."""
        return "\n".join(self.lines)

    def wait_for(self, pattern: str, times: int = 1) -> list[str]:
        """Wait until so many lines have matched; return the first groups."""
        with self._said:
            self._said.wait_for(
                lambda: self._is_silent or len(self._found(pattern)) >= times,
                STARTS_WITHIN,
            )
            found = self._found(pattern)
        assert len(found) >= times, f"no {pattern!r} in:\n{self.told}"
        return found

    def _found(self, pattern: str) -> list[str]:
        return [match[1] for line in self.lines if (match := re.search(pattern, line))]

    def end(self) -> int:
        """End it as a process manager does; return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self, within: float = ENDS_WITHIN) -> int:
        """Wait until it and its children are gone."""
        status = self.process.wait(within)
        # The pipe ends with the last process that holds it.
        self._reader.join(ENDS_WITHIN)
        assert self._is_silent, f"a child is left of:\n{self.told}"
        return status

    def kill(self) -> None:
        """Leave nothing behind, whatever the test has come to."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self._reader.join()
        if self.process.stdout:
            self.process.stdout.close()
        # Shown by pytest where the test fails.
        print(self.told)


@contextlib.contextmanager
def started(command: list[str], **env: str) -> Iterator[Program]:
    """Run *command* until the block ends."""
    program = Program(command, env)
    try:
        yield program
    finally:
        program.kill()


class Load:
    """Clients that ask all the time, and what they were answered."""

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
            # One core is for the server.
            self._is_over.wait(ASKS_EVERY)

    def _note(self, notes: list[Any], note: object) -> None:
        with self._changed:
            notes.append(note)
            self._changed.notify_all()

    def until(self, is_enough: Callable[[], bool]) -> None:
        """Wait until there is enough of it, or a failure."""
        with self._changed:
            self._changed.wait_for(
                lambda: bool(self.failures) or is_enough(), ROTATES_WITHIN
            )
            assert not self.failures, "\n".join(self.failures)
            assert is_enough(), f"only {self.credentials()} were seen"

    def until_rotated(self, processes: int, rotations: int = 2) -> None:
        """Wait until so many processes have each had so many new credentials."""
        self.until(
            lambda: (
                sum(len(seen) > rotations for seen in self.credentials().values())
                >= processes
            )
        )

    def credentials(self) -> dict[int, set[str]]:
        """Return by which credentials each process was logged in."""
        seen = collections.defaultdict(set)
        for facts in list(self.answers):
            seen[facts["pid"]].add(facts["expires_at"])
        return seen


def get(port: int, path: str) -> bytes:
    """Return the body of the page at *path*, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWERS_WITHIN)
    with contextlib.closing(connection):
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        assert answer.status == http.client.OK, f"{answer.status}: {body.decode()}"
        return body


def asking(port: int, path: str) -> Callable[[], Facts]:
    """Return a function that asks for the facts at *path*."""

    def ask() -> Facts:
        facts: Facts = json.loads(get(port, path))
        return facts

    return ask


def shared_sessions(answers: list[Facts]) -> set[int]:
    """Return the sessions of the server that more than one process has used."""
    users = collections.defaultdict(set)
    for facts in answers:
        users[facts["session"]].add(facts["pid"])
    return {session for session, pids in users.items() if len(pids) > 1}


def assert_no_herd(local: LocalLakebase, load: Load, processes: int) -> None:
    """Each process logs in once, and asks for about one credential per rotation."""
    counted = local.counters()
    assert counted["requests"]["/oidc/v1/token"] == processes, counted
    # No process renews before half of a life is over, unless a token was refused.
    each = 2 + load.seconds / (TTL / 2)
    most = processes * each + counted["refusals"]
    assert processes < counted["credentials_issued"] <= most, counted


def until(is_so: Callable[[], object]) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + ENDS_WITHIN
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(ASKS_EVERY)


def until_no_connection(local: LocalLakebase) -> None:
    """Wait until the last connection to *local* has ended."""
    until(lambda: local.counters()["open_connections"] == 0)
