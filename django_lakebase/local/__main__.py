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
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django_lakebase import __version__

from .as_app.environment import PLATFORM_VARIABLES
from .client import PARENT_VARIABLE, ClientError, call
from .faults import FAULTS, FaultError, parse_fault, parse_options

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
MAX_PORT = 65535
# The options of run that need --as-app, and their defaults.
APP_DEFAULTS: dict[str, Any] = {
    "user": "user@example.com",
    "endpoint_variable": None,
    "app_port": 0,
    "proxy_port": 0,
    "request_timeout": 120.0,
    "stop_timeout": 15.0,
}
EPILOG = "faults:\n" + "\n".join(
    f"  {name:<22}{fault.summary}" for name, fault in FAULTS.items()
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``lakebase-local`` with *arguments*; return its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except (FaultError, ClientError) as exc:
        return _fail(exc)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _fail(exc: Exception) -> int:
    print(f"lakebase-local: {exc}", file=sys.stderr)
    return 1


def _log(text: str) -> None:
    print(f"lakebase-local: {text}", file=sys.stderr, flush=True)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog="lakebase-local",
        description="Run a local Lakebase for development and tests: a workspace API, "
        "a gateway that checks tokens, and a real PostgreSQL server, on the loopback "
        "interface.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="run | start | fault")
    run = commands.add_parser(
        "run",
        help="start the emulator, run a command with the emulator's environment "
        "variables, then stop the emulator",
    )
    _add_server_options(run)
    _add_app_options(run)
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    run.set_defaults(function=_run)
    start = commands.add_parser(
        "start",
        help="start the emulator, print its environment variables, and run until "
        "interrupted",
    )
    _add_server_options(start)
    start.add_argument("--format", choices=("shell", "dotenv", "json"), default="shell")
    start.set_defaults(function=_start)
    fault = commands.add_parser(
        "fault",
        help="switch faults of a running emulator on or off, or list them",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fault.add_argument("action", choices=("set", "clear", "list"))
    fault.add_argument("name", nargs="?", metavar="NAME")
    fault.add_argument("fault_options", nargs="*", metavar="key=value")
    fault.set_defaults(function=_fault)
    return parser


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a port number from 0 to {MAX_PORT}.'
        )
    return int(text)


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) < float("inf"):
            return float(text)
    raise argparse.ArgumentTypeError(
        f'"{text}" is not a number of seconds greater than 0.'
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--token-ttl",
        type=_seconds,
        default=3600.0,
        metavar="SECONDS",
        help="lifetime of a database credential; may be shorter than the service's "
        "minimum (default: 3600)",
    )
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="keep the data in DIR between runs (default: delete it at the end)",
    )
    add(
        "--postgres",
        choices=("auto", "system", "embedded"),
        default="auto",
        help="auto (default): the system's PostgreSQL if it is version 15 or newer, "
        "otherwise the embedded one",
    )
    for option, server in (("--pg-port", "gateway"), ("--api-port", "API")):
        add(
            option,
            type=_port,
            default=0,
            metavar="PORT",
            help=f"port of the {server} (default: a free port)",
        )
    add(
        "--api-tls",
        action="store_true",
        help="serve the API over TLS with a certificate that clients can verify only "
        "with the file in REQUESTS_CA_BUNDLE, as behind a company's certificate "
        "authority",
    )
    add(
        "--libpq",
        action="store_true",
        help="also set PGHOSTADDR, which psql, pg_dump and plain psycopg need",
    )
    add(
        "--grants",
        choices=("default", "guide", "app"),
        help="privileges of the service principal: enough to migrate (default), only "
        "those that the service's guide grants, or only those that Databricks Apps "
        "grant (the default with --as-app)",
    )
    add(
        "--dialect",
        choices=("likely", "proxy", "postgres"),
        default="likely",
        help="which component rejects an expired token, a missing role or another "
        "identity's token, because the service's behaviour is unconfirmed: the most "
        "likely component for each (default), always the proxy, or always PostgreSQL",
    )
    add(
        "--suspend-after",
        type=_seconds,
        default=86400.0,
        metavar="SECONDS",
        help="idle time after which new endpoints scale to zero; may be shorter than "
        "the service's minimum (default: 86400)",
    )
    add(
        "--fault",
        action="append",
        default=[],
        metavar="NAME[:key=value,...]",
        help="switch this fault on at startup; can be repeated",
    )


def _add_app_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "Databricks Apps",
        "With --as-app, CMD runs as an app on Databricks Apps: with the variables of "
        "that platform, behind a proxy that signs a user in, and with the privileges "
        "that an app has. The other options need --as-app.",
    )
    add = group.add_argument
    add("--as-app", action="store_true", help="run CMD as an app on Databricks Apps")
    add(
        "--user",
        type=_user,
        metavar="EMAIL",
        help="the user whom the proxy signs in; its page /_local/sign-in signs a "
        f"browser in as another one (default: {APP_DEFAULTS['user']})",
    )
    add(
        "--endpoint-variable",
        type=_endpoint_variable,
        metavar="NAME",
        help="pass the name of the endpoint in this variable, as app.yaml does with "
        "valueFrom (default: do not pass it)",
    )
    add(
        "--app-port",
        type=_port,
        metavar="PORT",
        help="port of the app, DATABRICKS_APP_PORT (default: a free port)",
    )
    add(
        "--proxy-port",
        type=_port,
        metavar="PORT",
        help="port of the proxy, for browsers (default: a free port)",
    )
    add(
        "--request-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="time after which the proxy ends a request (default: 120)",
    )
    add(
        "--stop-timeout",
        type=_seconds,
        metavar="SECONDS",
        help="time between SIGTERM and SIGKILL when the app is stopped (default: 15)",
    )


def _user(text: str) -> str:
    from .as_app.users import is_valid_user

    if not is_valid_user(text):
        raise argparse.ArgumentTypeError(f'"{text}" is not an e-mail address.')
    return text


def _endpoint_variable(text: str) -> str:
    if not text.isidentifier() or not text.isascii() or text in PLATFORM_VARIABLES:
        raise argparse.ArgumentTypeError(
            f'"{text}" is not a name for a variable of the app.'
        )
    return text


def _app_options(options: argparse.Namespace) -> "AppOptions | None":
    """Return the options of ``--as-app``, or None if it was not given."""
    given = {
        name: value
        for name in APP_DEFAULTS
        if (value := getattr(options, name)) is not None
    }
    if not options.as_app:
        for name in given:
            raise ClientError(f"--{name.replace('_', '-')} needs --as-app.")
        return None
    if options.app_port and options.app_port == options.proxy_port:
        raise ClientError(
            "--app-port and --proxy-port are the same. The app and the proxy in front "
            "of it need different ports."
        )
    from .as_app.run import AppOptions

    return AppOptions(**{**APP_DEFAULTS, **given})


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


def _run(options: argparse.Namespace) -> int:
    command = options.command
    if command[:1] == ["--"]:
        command = command[1:]
    if not command:
        raise ClientError("run needs a command: lakebase-local run -- CMD ...")
    emulator = _new_emulator(options, is_app=options.as_app)
    app_options = _app_options(options)
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
    from .emulator import clean_environment
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
        _log(f"{command[0]} cannot be run: {exc.strerror}")
        return 127
    finally:
        await emulator.stop()


async def _run_as_app(
    emulator: "Emulator", command: list[str], options: "AppOptions"
) -> int:
    from .as_app.run import run_app
    from .emulator import clean_environment

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


def _fault(options: argparse.Namespace) -> int:
    url = os.environ.get("LAKEBASE_LOCAL_URL", "")
    if not url:
        raise ClientError(
            "LAKEBASE_LOCAL_URL is not set. Run this command under lakebase-local run "
            "-- CMD, or set the variable to the value that lakebase-local start prints."
        )
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
