"""Runs a command as Databricks Apps runs an app: proxy, environment, stop."""

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from . import supervisor
from .environment import build_environment
from .proxy import HOST, SIGN_IN_PATH, AppProxy

# app.yaml runs a command without a shell, and only this variable is replaced in it.
PORT_REFERENCE = "$DATABRICKS_APP_PORT"


@dataclass(frozen=True, kw_only=True)
class AppOptions:
    """
    Options of ``--as-app``; ports may be 0 for any free port.

    *request_timeout* and *stop_timeout*, the time between SIGTERM and SIGKILL, are in
    seconds. *endpoint_variable* is the variable with the name of the endpoint, if any.
    """

    user: str
    endpoint_variable: str | None
    app_port: int
    proxy_port: int
    request_timeout: float
    stop_timeout: float


async def run_app(
    command: Sequence[str],
    options: AppOptions,
    *,
    environment: Mapping[str, str],
    emulator_environment: Mapping[str, str],
    facts: Mapping[str, Any],
    wait_until_stopped: Callable[[], Coroutine[Any, Any, None]],
    log: Callable[[str], None],
) -> int:
    """
    Run *command* until it ends or is to be stopped; return its exit status.

    *environment* is what the command inherits; the app's variables are added.
    """
    app_port = options.app_port or _find_free_port()
    proxy = AppProxy(
        app_port=app_port,
        user=options.user,
        workspace_id=facts["workspace_id"],
        timeout=options.request_timeout,
    )
    async with proxy.serve(options.proxy_port) as url:
        app_environment = build_environment(
            environment,
            emulator_environment,
            facts,
            app_url=url,
            app_port=app_port,
            endpoint_variable=options.endpoint_variable,
        )
        log(
            f"app at {url}, signed in as {options.user} (to change the user: "
            f"{url}{SIGN_IN_PATH}); it must listen on {HOST}:{app_port}"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            # Modules in the app's folder must not replace those of Python.
            "-P",
            "-m",
            supervisor.__name__,
            str(options.stop_timeout),
            *(part.replace(PORT_REFERENCE, str(app_port)) for part in command),
            env=app_environment,
            stdin=subprocess.PIPE,
            # Signals to the emulator's process group, from Ctrl-C to SIGKILL, must not
            # reach the supervisor.
            start_new_session=True,
        )
        ended = asyncio.ensure_future(process.wait())
        stop = asyncio.ensure_future(wait_until_stopped())
        await asyncio.wait((ended, stop), return_when=asyncio.FIRST_COMPLETED)
        stop.cancel()
        if process.stdin is not None:
            process.stdin.close()
        status = await ended
        # Negative if someone has killed the supervisor itself.
        return status if status >= 0 else 128 - status


def _find_free_port() -> int:
    with socket.socket() as server:
        server.bind((HOST, 0))
        return int(server.getsockname()[1])
