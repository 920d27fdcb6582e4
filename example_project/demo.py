"""
``make demo``: migrates and serves the example project on a local Lakebase.

Runs inside ``lakebase-local run``, which sets every variable. With ``--once`` it
requests the page until the credential has been replaced three times, and exits.
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
START_TIMEOUT, ROTATION_TIMEOUT, POLL_INTERVAL = 30.0, 180.0, 0.1


class DemoError(Exception):
    """The demo failed; the text says how."""


class Server:
    """The development server of the example project, in a separate process."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, MANAGE, "runserver", "--noreload", f"{HOST}:{port}"]
        self.port = port
        self.process = subprocess.Popen(  # noqa: S603 - our own command.
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        self._last_lines = collections.deque[str](maxlen=20)
        # Its log must be read: the server blocks once the pipe is full.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def wait_until_ready(self) -> None:
        """Wait until the server accepts connections; raises DemoError."""
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(OSError):
                socket.create_connection((HOST, self.port), 1).close()
                return
            time.sleep(POLL_INTERVAL)
        raise self.stopped("the server did not start")

    def stopped(self, text: str) -> DemoError:
        """Stop the server; return an error with *text* and the end of its log."""
        self.stop()
        self._reader.join(1)
        return DemoError(
            "\n".join((f"{text}. The last lines of its log:", *self._last_lines))
        )

    def stop(self) -> None:
        """Stop the server and wait until it has exited."""
        self.process.terminate()
        self.process.wait()

    def _read(self) -> None:
        for line in self.process.stderr or ():
            self._last_lines.append(line.rstrip())


def main() -> int:
    """Run the demo; return its exit status."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if not os.environ.get("LAKEBASE_LOCAL_URL"):
        print("Run it as: make demo", file=sys.stderr)
        return 1
    # The shell may be set up for another project.
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    try:
        port = _free_port(options.port)
        _prepare()
        with _serving(port) as server:
            return _once(server) if options.once else _stay(server)
    except DemoError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        # With --once, an interrupted demo has not finished.
        return 128 + signal.SIGINT if options.once else 0


def _free_port(wanted: int) -> int:
    """Return *wanted* if it is free, or any free port if it is 0; raises DemoError."""
    if not 0 <= wanted <= HIGHEST_PORT:
        raise DemoError(
            f"PORT={wanted} is not a port number; the highest is {HIGHEST_PORT}."
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
            # Two sockets may be bound to one port as long as neither listens.
            probe.listen()
        except OSError as exc:
            raise DemoError(
                f"port {wanted} cannot be used ({exc.strerror}). Choose another port, "
                "for example: make demo PORT=8001"
            ) from exc
        return int(probe.getsockname()[1])


def _prepare() -> None:
    """Migrate, load a few rows, and check the connection."""
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
    """Serve the page on *port* until the block ends."""
    server = Server(port)
    try:
        server.wait_until_ready()
        yield server
    finally:
        server.stop()


def _stay(server: Server) -> int:
    print(f"\nOpen http://{HOST}:{server.port}/ and watch the token rotate.")
    print("Press Ctrl-C to stop.", flush=True)
    server.process.wait()
    raise server.stopped("the server exited")


def _once(server: Server) -> int:
    print(f"\nRequesting http://{HOST}:{server.port}/ until {ROTATIONS} rotations")
    started_at = time.monotonic()
    first = last = _fetch_facts(server)
    # Each call requests the page and the JSON.
    rotations, request_count = 0, 2
    while rotations < ROTATIONS:
        if time.monotonic() > started_at + ROTATION_TIMEOUT:
            raise DemoError(f"only {rotations} rotations in {ROTATION_TIMEOUT:.0f} s.")
        time.sleep(POLL_INTERVAL)
        now = _fetch_facts(server)
        request_count += 2
        # Later, not merely different: a pool may return an older connection again.
        if now["credential_expires_at"] > last["credential_expires_at"]:
            if now["session"] == last["session"]:
                raise DemoError("the credential changed, but the connection did not.")
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
        raise DemoError(f"{ROTATIONS} rotations with only {credentials} credentials.")
    print(
        f"{rotations} rotations in {time.monotonic() - started_at:.0f} s: "
        f"{request_count} requests, all answered, took {connections_used} "
        f"connections and {credentials} credentials."
    )
    return 0


def _fetch_facts(server: Server) -> dict[str, Any]:
    """Request the page and its facts; return the facts."""
    _get(server, "/")
    facts: dict[str, Any] = json.loads(_get(server, "/facts.json"))
    return facts


def _get(server: Server, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as exc:
        raise server.stopped(f"GET {path} got no response ({exc!r})") from exc
    finally:
        connection.close()
    if response.status != http.client.OK:
        raise server.stopped(f"GET {path} returned {response.status}")
    return body


if __name__ == "__main__":
    sys.exit(main())
