"""
``make demo``: the example project on the local Lakebase, from nothing to a page.

Runs inside ``lakebase-local run``, so every variable is set. With ``--once`` it asks
for the page over HTTP until three credentials have followed each other, and ends.
"""

import argparse
import collections
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.core.management import CommandError, call_command
from django.db import DatabaseError, connections

MANAGE = str(Path(__file__).parent.parent / "manage.py")
HOST = "127.0.0.1"
ROTATIONS = 3
HIGHEST_PORT = 65535
# Seconds.
STARTS_WITHIN, ROTATES_WITHIN, ASKS_EVERY = 30.0, 180.0, 0.1


class DemoError(Exception):
    """The demo did not show what it should; the text says what it saw."""


class Server:
    """The example project's own server, in a process of its own."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, MANAGE, "runserver", "--noreload", f"{HOST}:{port}"]
        self.port = port
        self.process = subprocess.Popen(  # noqa: S603 - ours.
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._said = collections.deque[str](maxlen=20)
        # Somebody must read what it logs: it waits for ever once the pipe is full.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_for(self) -> None:
        """Wait until it answers; raises DemoError."""
        deadline = time.monotonic() + STARTS_WITHIN
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, self.port), 1).close()
                return
            time.sleep(ASKS_EVERY)
        raise self.error("the server did not start")

    def error(self, text: str) -> DemoError:
        """Return the error that *text* names, with what the server said last."""
        self.stop()
        self._reader.join(1)
        return DemoError("\n".join((f"{text}. The server said:", *self._said)))

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self._said.append(line.rstrip())


def main() -> int:
    """Run the demo; return its exit status."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if not os.environ.get("LAKEBASE_LOCAL_URL"):
        print("Run it as: make demo", file=sys.stderr)
        return 1
    # Whatever project the shell was set up for.
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        port = _port(options.port)
        _prepare()
        with _serving(port) as server:
            return _once(server) if options.once else _stay(server)
    except DemoError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # Who asked --once was not shown what he asked for.
        return 128 + signal.SIGINT if options.once else 0


def _port(wanted: int) -> int:
    """Return a port that can be listened on; 0 asks for any."""
    if not 0 <= wanted <= HIGHEST_PORT:
        raise DemoError(f"PORT={wanted} is not a port: they end at {HIGHEST_PORT}.")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
            # A second one may be bound to the same port, as long as none listens.
            probe.listen()
        except OSError as exc:
            raise DemoError(
                f"port {wanted} cannot be used ({exc.strerror}). Choose another one, "
                "as in: make demo PORT=8001"
            ) from exc
        return int(probe.getsockname()[1])


def _prepare() -> None:
    """Migrate, load a few rows, and prove the connection."""
    django.setup()
    for command in (
        ("migrate", "--verbosity=0"),
        ("loaddata", "notes", "--verbosity=0"),
        ("lakebase_check",),
    ):
        print(f"\n$ manage.py {' '.join(command)}", flush=True)
        try:
            call_command(*command)
        except (CommandError, DatabaseError, SystemExit) as exc:
            raise DemoError(f"manage.py {command[0]} failed: {exc}") from exc
    for connection in connections.all(initialized_only=True):
        connection.close()
        connection.close_pool()  # type: ignore[attr-defined]


@contextlib.contextmanager
def _serving(port: int) -> Iterator[Server]:
    """Serve the page on *port*; the server ends with the block."""
    server = Server(port)
    try:
        server.wait_for()
        yield server
    finally:
        server.stop()


def _stay(server: Server) -> int:
    print(f"\nOpen http://{HOST}:{server.port}/ and watch. Ctrl-C ends everything.")
    sys.stdout.flush()
    server.process.wait()
    raise server.error("the server ended")


def _once(server: Server) -> int:
    print(
        f"\nAsking http://{HOST}:{server.port}/ until {ROTATIONS} tokens were renewed"
    )
    started_at = time.monotonic()
    first = last = _ask(server)
    # Each look asks for the page and for the facts behind it.
    rotations, asked = 0, 2
    while rotations < ROTATIONS:
        if time.monotonic() > started_at + ROTATES_WITHIN:
            raise DemoError(f"{rotations} rotations in {ROTATES_WITHIN:.0f} s.")
        time.sleep(ASKS_EVERY)
        now = _ask(server)
        asked += 2
        # Later, not other: a pool may hand out its older connection once more.
        if now["credential_expires_at"] > last["credential_expires_at"]:
            if now["session"] == last["session"]:
                raise DemoError("the credential changed, and the connection did not.")
            rotations += 1
            print(
                f"  {rotations}: session {last['session']} until "
                f"{last['credential_expires_at']}, now {now['session']} until "
                f"{now['credential_expires_at']}",
                flush=True,
            )
            last = now
    connections_used = last["connections"] - first["connections"] + 1
    credentials = last["credentials"] - first["credentials"] + 1
    if credentials <= ROTATIONS:
        raise DemoError(f"{ROTATIONS} rotations out of {credentials} credentials.")
    print(
        f"{rotations} rotations in {time.monotonic() - started_at:.0f} s: {asked} "
        f"requests, all answered, took {connections_used} connections and "
        f"{credentials} credentials."
    )
    return 0


def _ask(server: Server) -> dict[str, Any]:
    """Return the facts behind the page, having asked for the page too."""
    _get(server, "/")
    facts: dict[str, Any] = json.loads(_get(server, "/facts.json"))
    return facts


def _get(server: Server, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as exc:
        raise server.error(f"GET {path} had no answer ({exc!r})") from exc
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise server.error(f"GET {path} was answered with {answer.status}")
    return body


if __name__ == "__main__":
    sys.exit(main())
