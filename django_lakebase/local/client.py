"""A client of a running emulator, for tests and scripts."""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

# What a parent's environment may say of another database or workspace.
VARIABLE_PREFIXES = ("DATABRICKS_", "ARM_", "PG", "LAKEBASE_", "ENDPOINT_NAME")
# Names the process with which ``start`` is to end, however that one ends.
PARENT_VARIABLE = "LAKEBASE_LOCAL_PARENT"
# Seconds.
TIMEOUT, STOP_TIMEOUT = 10.0, 30.0


class ClientError(Exception):
    """The local Lakebase did not do it; the text says why."""


def call(url: str, method: str, path: str, body: object = None) -> Any:
    """Send a request under ``/_local/`` of *url* and return its answer."""
    data = None if body is None else json.dumps(body).encode()
    # A proxy of the environment must not be asked for this machine's own port.
    director = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(  # noqa: S310 - an http address of our own.
            f"{url}/_local/{path}",
            data=data,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with director.open(request, timeout=TIMEOUT) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc, contextlib.suppress(ValueError, KeyError, TypeError):
            raise ClientError(json.load(exc)["message"]) from None
        raise ClientError(f"What answers at {url} is no local Lakebase.") from None
    # A ValueError: no address, or an answer that is no JSON.
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise ClientError(
            f"No local Lakebase answers at {url} ({exc}). Is it still running?"
        ) from exc


class LocalLakebase:
    """A running local Lakebase: its variables, facts, faults and counters."""

    def __init__(self, env: dict[str, str], facts: dict[str, Any]) -> None:
        self.env, self.facts = env, facts
        self.url = env["LAKEBASE_LOCAL_URL"]

    @classmethod
    @contextlib.contextmanager
    def start(cls, *options: str) -> Iterator["LocalLakebase"]:
        """Start one with the *options* of ``lakebase-local start``, and stop it."""
        command = [sys.executable, "-m", "django_lakebase.local", "start"]
        environment = dict(os.environ)
        # The kernel looks at the thread that started it, so only for one that stays.
        if threading.current_thread() is threading.main_thread():
            environment[PARENT_VARIABLE] = str(os.getpid())
        with subprocess.Popen(  # noqa: S603 - our own program.
            [*command, *options, "--format", "json"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment,
            text=True,
        ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    raise ClientError(f"lakebase-local ended with {process.wait()}")
                output = json.loads(line)
                yield cls(output["env"], output["facts"])
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_TIMEOUT)

    @classmethod
    def running(cls, url: str) -> "LocalLakebase":
        """Return the one under which this process was started."""
        env = {k: v for k, v in os.environ.items() if k.startswith(VARIABLE_PREFIXES)}
        return cls(env, call(url, "GET", "facts"))

    def set_fault(self, name: str, **options: object) -> None:
        """Switch the fault *name* on."""
        call(self.url, "PUT", f"faults/{name}", options)

    def clear_faults(self) -> None:
        """Switch all faults off."""
        call(self.url, "DELETE", "faults")

    @contextlib.contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        """Have the fault *name* on for a while."""
        self.set_fault(name, **options)
        try:
            yield
        finally:
            call(self.url, "DELETE", f"faults/{name}")

    def counters(self) -> dict[str, Any]:
        """Return what was counted since the last reset."""
        counted: dict[str, Any] = call(self.url, "GET", "counters")
        return counted

    def reset_counters(self) -> None:
        """Count from nothing."""
        call(self.url, "DELETE", "counters")

    def issue(self, user: str, ttl: float = 3600.0) -> str:
        """Return a database token for *user*; one below 0 s of life is expired."""
        answer = call(self.url, "POST", "credentials", {"user": user, "ttl": ttl})
        return str(answer["token"])
