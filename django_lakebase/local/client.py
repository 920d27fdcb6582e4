"""A client for the emulator, for tests and scripts."""

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

# The address on which all servers of the emulator listen.
HOSTADDR = "127.0.0.1"
# Prefixes of environment variables that may point to another database or workspace.
VARIABLE_PREFIXES = ("DATABRICKS_", "ARM_", "PG", "LAKEBASE_", "ENDPOINT_NAME")
# The identities of the emulator, as the command and LocalLakebase name them.
IDENTITIES = ("owner", "developer", "app")
# Variable with a process id: ``start`` stops when that process ends, even by SIGKILL.
PARENT_VARIABLE = "LAKEBASE_LOCAL_PARENT"
# Seconds.
TIMEOUT, STOP_TIMEOUT = 10.0, 30.0


class ClientError(Exception):
    """The emulator could not be started or reached, or it rejected a request."""


def call(url: str, method: str, path: str, body: object = None) -> Any:
    """Send a request to ``/_local/`` at *url*; return the JSON of the response."""
    data = None if body is None else json.dumps(body).encode()
    # Ignore proxy variables in the environment: the server is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(  # noqa: S310 - the emulator's http address.
            f"{url}/_local/{path}",
            data=data,
            method=method,
            headers={"Content-Type": "application/json"},
        )
        with opener.open(request, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as exc:
        with exc, contextlib.suppress(ValueError, KeyError, TypeError):
            raise ClientError(json.load(exc)["message"]) from None
        raise ClientError(f"The server at {url} is not a local Lakebase.") from None
    # ValueError: *url* is no valid URL, or the response is not JSON.
    except (OSError, ValueError, http.client.HTTPException) as exc:
        raise ClientError(
            f"No local Lakebase answers at {url} ({exc}). Is it still running?"
        ) from exc


def clean_environment(environment: dict[str, str]) -> dict[str, str]:
    """
    Return *environment* without variables for another database or workspace.

    If it names an HTTP proxy, add the emulator's address to ``no_proxy``.
    """
    kept = {k: v for k, v in environment.items() if not k.startswith(VARIABLE_PREFIXES)}
    if any(name.lower() in ("http_proxy", "all_proxy") for name in kept):
        exempt = kept.get("no_proxy") or kept.get("NO_PROXY") or ""
        kept["no_proxy"] = kept["NO_PROXY"] = f"{exempt},{HOSTADDR}".lstrip(",")
    return kept


def fetch_environment(url: str, identity: str) -> dict[str, str]:
    """Fetch the variables of *identity*, one of `IDENTITIES`. Raises ClientError."""
    variables: dict[str, str] = call(url, "GET", f"environments/{identity}")
    return variables


class LocalLakebase:
    """A running local Lakebase; *env* has its environment variables."""

    def __init__(self, env: dict[str, str], facts: dict[str, Any]) -> None:
        self.env, self.facts = env, facts
        self.url = env["LAKEBASE_LOCAL_URL"]

    @classmethod
    @contextlib.contextmanager
    def start(cls, *options: str) -> Iterator["LocalLakebase"]:
        """Run ``lakebase-local start`` with *options*; stop it when the block ends."""
        command = [sys.executable, "-m", "django_lakebase.local", "start"]
        environment = dict(os.environ)
        # The kernel sends the parent-death signal when the *thread* that started the
        # process ends, so ask for it only in the main thread.
        if threading.current_thread() is threading.main_thread():
            environment[PARENT_VARIABLE] = str(os.getpid())
        with subprocess.Popen(  # noqa: S603 - this package.
            [*command, *options, "--format", "json"],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            env=environment,
            text=True,
        ) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    raise ClientError(
                        f"lakebase-local exited with status {process.wait()} before it "
                        "was ready. It wrote the reason to standard error."
                    )
                output = json.loads(line)
                yield cls(output["env"], output["facts"])
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(STOP_TIMEOUT)

    @classmethod
    def running(cls, url: str) -> "LocalLakebase":
        """Return the local Lakebase at *url*; this process must have its variables."""
        env = {k: v for k, v in os.environ.items() if k.startswith(VARIABLE_PREFIXES)}
        return cls(env, call(url, "GET", "facts"))

    def environment_of(self, identity: str) -> dict[str, str]:
        """
        Return the variables with which a program acts as *identity*.

        *identity* is ``owner``, ``developer`` or ``app``, the service principal.
        """
        return fetch_environment(self.url, identity)

    def set_fault(self, name: str, **options: object) -> None:
        """Switch on the fault *name*."""
        call(self.url, "PUT", f"faults/{name}", options)

    def clear_faults(self) -> None:
        """Switch off all faults."""
        call(self.url, "DELETE", "faults")

    @contextlib.contextmanager
    def fault(self, name: str, **options: object) -> Iterator[None]:
        """Switch on the fault *name* until the block ends."""
        self.set_fault(name, **options)
        try:
            yield
        finally:
            call(self.url, "DELETE", f"faults/{name}")

    def fetch_counters(self) -> dict[str, Any]:
        """Fetch the counters since the last reset."""
        counters: dict[str, Any] = call(self.url, "GET", "counters")
        return counters

    def reset_counters(self) -> None:
        """Reset the counters to zero."""
        call(self.url, "DELETE", "counters")

    def issue_token(self, user: str, ttl: float = 3600.0) -> str:
        """
        Return a database token for *user*.

        *ttl* is in seconds; if it is negative, the token is already expired.
        """
        credential = call(self.url, "POST", "credentials", {"user": user, "ttl": ttl})
        return str(credential["token"])
