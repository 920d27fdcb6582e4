"""The ``lakebase-local`` command."""

import argparse
import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from .arguments import build_parser, read_app_options
from .client import (
    PARENT_VARIABLE,
    ClientError,
    call,
    clean_environment,
    fetch_environment,
)
from .faults import FaultError, parse_fault, parse_options

if TYPE_CHECKING:
    from .as_app.run import AppOptions
    from .emulator import Emulator

REQUIRED_PACKAGES = {"aiohttp": "aiohttp", "trustme": "trustme", "jwt": "pyjwt[crypto]"}
# Signals that terminate a process by default and that a command may handle itself.
FORWARDED_SIGNALS = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``lakebase-local`` with *arguments*; return its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        functions = {"run": _run, "start": _start, "as": _act, "fault": _fault}
        return functions[options.subcommand](options)
    except (FaultError, ClientError) as exc:
        return _fail(exc)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _fail(exc: Exception) -> int:
    print(f"lakebase-local: {exc}", file=sys.stderr)
    return 1


def _fail_to_run(command: Sequence[str], exc: OSError) -> int:
    _log(f"{command[0]} cannot be run: {exc.strerror}")
    return 127


def _log(text: str) -> None:
    print(f"lakebase-local: {text}", file=sys.stderr, flush=True)


def _new_emulator(options: argparse.Namespace, *, is_app: bool = False) -> "Emulator":
    missing = [
        package
        for name, package in REQUIRED_PACKAGES.items()
        if not importlib.util.find_spec(name)
    ]
    if missing:
        raise ClientError(
            f"Required packages are not installed: {', '.join(missing)}. Run: "
            'pip install "django-lakebase[local]"'
        )
    from .emulator import Emulator, Options
    from .login_errors import Dialect

    return Emulator(
        Options(
            token_ttl=options.token_ttl,
            data=options.data,
            postgres=options.postgres,
            pg_port=options.pg_port,
            api_port=options.api_port,
            # A DATABRICKS_HOST without a scheme, as in an app, means https.
            api_tls=options.api_tls or is_app,
            libpq=options.libpq,
            grants=options.grants or ("app" if is_app else "default"),
            dialect=Dialect(options.dialect),
            suspend_after=options.suspend_after,
            faults=[parse_fault(text) for text in options.fault],
        ),
        _log,
    )


def _serve(main: Coroutine[Any, Any, int]) -> int:
    from .errors import LocalError

    # libpq must not read the user's variables when it connects to the servers here.
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]
    try:
        with asyncio.Runner(loop_factory=find_event_loop()) as runner:
            return runner.run(main)
    except LocalError as exc:
        return _fail(exc)


def find_event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's event loop, or None if uvloop cannot be imported."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def _read_command(options: argparse.Namespace) -> list[str]:
    """Return the command at the end of the arguments. Raises ClientError."""
    command: list[str] = options.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        name = " ".join((options.subcommand, getattr(options, "identity", ""))).strip()
        raise ClientError(
            f"{options.subcommand} needs a command: lakebase-local {name} -- CMD ..."
        )
    return command


def _run(options: argparse.Namespace) -> int:
    command = _read_command(options)
    emulator = _new_emulator(options, is_app=options.as_app)
    app_options = read_app_options(options)
    if app_options is not None:
        return _serve(_run_as_app(emulator, command, app_options))
    return _serve(_run_command(emulator, command))


def _start(options: argparse.Namespace) -> int:
    parent = os.environ.get(PARENT_VARIABLE)
    if parent:
        from .libc import die_with_parent

        die_with_parent(signal.SIGTERM)
        if os.getppid() != int(parent):
            raise ClientError(
                "The parent process that started this one has already ended."
            )
    return _serve(_serve_until_stopped(_new_emulator(options), options.format))


async def _run_command(emulator: "Emulator", command: list[str]) -> int:
    from .libc import die_with_parent

    stop = _StopSignals()
    await stop.run_until_stopped(emulator.start())
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=clean_environment(dict(os.environ)) | emulator.environment,
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        stop.forward_to(process)
        status = await process.wait()
        return status if status >= 0 else 128 - status
    except OSError as exc:
        return _fail_to_run(command, exc)
    finally:
        await emulator.stop()


async def _run_as_app(
    emulator: "Emulator", command: list[str], options: "AppOptions"
) -> int:
    from .as_app.run import run_app

    stop = _StopSignals()
    await stop.run_until_stopped(emulator.start())
    try:
        return await run_app(
            command,
            options,
            environment=clean_environment(dict(os.environ)),
            emulator_environment=emulator.environment,
            facts=emulator.facts,
            wait_until_stopped=stop.wait,
            log=_log,
        )
    finally:
        await emulator.stop()


async def _serve_until_stopped(emulator: "Emulator", style: str) -> int:
    from .emulator import format_environment

    stop = _StopSignals()
    await stop.run_until_stopped(emulator.start())
    try:
        output = {"env": emulator.environment, "facts": emulator.facts}
        is_json = style == "json"
        text = (
            json.dumps(output)
            if is_json
            else format_environment(emulator.environment, style)
        )
        print(text, flush=True)
        await stop.wait()
        return 0
    finally:
        await emulator.stop()


class _StopSignals:
    """Handlers for termination signals: record them and forward them to a command."""

    def __init__(self) -> None:
        self._stopped = asyncio.Event()
        self._received: signal.Signals | None = None
        self._process: asyncio.subprocess.Process | None = None
        loop = asyncio.get_running_loop()
        for number in FORWARDED_SIGNALS:
            loop.add_signal_handler(number, self._receive, number)

    async def run_until_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Await *work*; on a signal, cancel it and raise SystemExit."""
        task = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopped.wait())
        await asyncio.wait((task, stopped), return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not task.done():
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            raise SystemExit(128 + (self._received or signal.SIGTERM))
        await task

    def forward_to(self, process: asyncio.subprocess.Process) -> None:
        """Forward signals to *process*, including one that was already received."""
        self._process = process
        if self._received is not None:
            self._receive(self._received)

    async def wait(self) -> None:
        """Wait for a signal."""
        await self._stopped.wait()

    def _receive(self, number: signal.Signals) -> None:
        self._received = number
        self._stopped.set()
        process = self._process
        if process is None or process.returncode is not None:
            return
        # The terminal sends the signals of Ctrl-C and Ctrl-\ to the whole foreground
        # process group, so the command has already received them.
        is_from_key = number in (signal.SIGINT, signal.SIGQUIT)
        if is_from_key and _is_foreground():
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)


def _is_foreground() -> bool:
    """Return whether this process is in the foreground group of its terminal."""
    with contextlib.suppress(OSError):
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def _find_running() -> str:
    """Return the URL of the running emulator. Raises ClientError."""
    url = os.environ.get("LAKEBASE_LOCAL_URL", "")
    if not url:
        raise ClientError(
            "LAKEBASE_LOCAL_URL is not set. Run this command under lakebase-local run "
            "-- CMD, or set the variable to the value that lakebase-local start prints."
        )
    return url


def _act(options: argparse.Namespace) -> int:
    command = _read_command(options)
    variables = fetch_environment(_find_running(), options.identity)
    environment = clean_environment(dict(os.environ)) | variables
    try:
        # Replaces this process, so signals and the exit status need no forwarding.
        os.execvpe(command[0], command, environment)  # noqa: S606 - no shell, as in run.
    except OSError as exc:
        return _fail_to_run(command, exc)


def _fault(options: argparse.Namespace) -> int:
    url = _find_running()
    if options.action == "set":
        if not options.name:
            raise ClientError(
                "fault set needs a NAME. Run lakebase-local fault --help for a list."
            )
        fault_options = parse_options(options.name, options.fault_options)
        call(url, "PUT", f"faults/{options.name}", fault_options)
    elif options.action == "clear":
        call(url, "DELETE", f"faults/{options.name}" if options.name else "faults")
    for name, active in call(url, "GET", "faults").items():
        print(name, *(f"{key}={value}" for key, value in active.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
