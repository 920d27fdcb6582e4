"""
``make demo``: the example project on the local Lakebase, from nothing to a page.

Runs inside ``lakebase-local run``, so every variable is set. With ``--once`` it asks
for the page over HTTP until three credentials have followed each other, and ends.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

MANAGE = str(Path(__file__).parent.parent / "manage.py")
HOST = "127.0.0.1"
ROTATIONS = 3
# Seconds.
STARTS_WITHIN, ROTATES_WITHIN, ASKS_EVERY = 30.0, 180.0, 0.1


class DemoError(Exception):
    """The demo did not show what it should; the text says what it saw."""


def main() -> int:
    """Run the demo; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT") or 0))
    options = parser.parse_args()
    if not os.environ.get("LAKEBASE_LOCAL_URL"):
        print("Run it as: make demo", file=sys.stderr)
        return 1
    # Whatever project the shell was set up for.
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    try:
        _prepare()
        with _server(_port(options.port)) as port:
            return _once(port) if options.once else _stay(port)
    except DemoError as exc:
        print(f"demo: {exc}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0


def _prepare() -> None:
    """Migrate, load a few rows, and prove the connection."""
    for command in (
        ("migrate", "--verbosity", "0"),
        ("loaddata", "notes", "--verbosity", "0"),
        ("lakebase_check",),
    ):
        print(f"\n$ manage.py {' '.join(command)}", flush=True)
        run = subprocess.run([sys.executable, MANAGE, *command], check=False)  # noqa: S603 - ours.
        if run.returncode:
            raise DemoError(f"manage.py {command[0]} ended with {run.returncode}.")


def _port(wanted: int) -> int:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, wanted))
        except OSError as exc:
            raise DemoError(
                f"port {wanted} cannot be used ({exc.strerror}). Choose another one: "
                "make demo PORT=8001"
            ) from exc
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _server(port: int) -> Iterator[int]:
    """Serve the page on *port*; the server ends with the block."""
    command = [sys.executable, MANAGE, "runserver", "--noreload", f"{HOST}:{port}"]
    with subprocess.Popen(  # noqa: S603 - ours.
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            _wait_for(process, port)
            yield port
        finally:
            process.send_signal(signal.SIGTERM)
            if process.stderr is not None:
                process.stderr.close()


def _wait_for(process: "subprocess.Popen[str]", port: int) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection((HOST, port), 1).close()
            return
        time.sleep(ASKS_EVERY)
    raise DemoError("the server did not start.")


def _stay(port: int) -> int:
    print(
        f"\nOpen http://{HOST}:{port}/ and watch. Ctrl-C ends everything.", flush=True
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.pause()
    return 0


def _once(port: int) -> int:
    print(f"\nAsking http://{HOST}:{port}/ until {ROTATIONS} rotations have passed")
    deadline = time.monotonic() + ROTATES_WITHIN
    first = last = _ask(port)
    # Each look asks for the page and for the facts behind it.
    rotations, asked = 0, 2
    while rotations < ROTATIONS:
        if time.monotonic() > deadline:
            raise DemoError(f"{rotations} rotations in {ROTATES_WITHIN:.0f} s.")
        time.sleep(ASKS_EVERY)
        now = _ask(port)
        asked += 2
        if now["credential_expires_at"] != last["credential_expires_at"]:
            if now["session"] == last["session"]:
                raise DemoError("the credential changed, and the connection did not.")
            rotations += 1
            print(f"  rotation {rotations} after {asked} requests", flush=True)
        last = now
    connections = last["connections"] - first["connections"] + 1
    credentials = last["credentials"] - first["credentials"] + 1
    print(
        f"{rotations} rotations: {asked} requests, all answered, took {connections} "
        f"connections and {credentials} credentials."
    )
    return 0


def _ask(port: int) -> dict[str, Any]:
    """Return the facts behind the page, having asked for the page too."""
    _get(port, "/")
    facts: dict[str, Any] = json.loads(_get(port, "/facts.json"))
    return facts


def _get(port: int, path: str) -> bytes:
    connection = http.client.HTTPConnection(HOST, port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
    except OSError as exc:
        raise DemoError(f"GET {path} had no answer: {exc}.") from exc
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise DemoError(f"GET {path} was answered with {answer.status}.")
    return body


if __name__ == "__main__":
    sys.exit(main())
