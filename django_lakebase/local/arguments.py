"""The arguments of the ``lakebase-local`` command."""

import argparse
import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django_lakebase import __version__

from .as_app.environment import PLATFORM_VARIABLES
from .client import IDENTITIES, ClientError
from .faults import FAULTS

if TYPE_CHECKING:
    from .as_app.run import AppOptions

MAX_PORT = 65535
# The options of run that require --as-app, and their defaults.
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
    commands = parser.add_subparsers(
        required=True, dest="subcommand", metavar="run | start | as | fault"
    )
    run = commands.add_parser(
        "run",
        help="start the emulator, run a command with the emulator's environment "
        "variables, then stop the emulator",
    )
    _add_server_options(run)
    _add_app_options(run)
    run.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    start = commands.add_parser(
        "start",
        help="start the emulator, print its environment variables, and run until "
        "interrupted",
    )
    _add_server_options(start)
    start.add_argument("--format", choices=("shell", "dotenv", "json"), default="shell")
    act = commands.add_parser(
        "as",
        help="run a command with the variables of a running emulator for another "
        "identity",
        description="Run a command with the variables of the running emulator for an "
        "identity: the owner of the project, a developer, or the service principal of "
        "the app.",
    )
    act.add_argument("identity", choices=IDENTITIES, metavar="owner | developer | app")
    act.add_argument("command", nargs=argparse.REMAINDER, metavar="-- CMD ...")
    fault = commands.add_parser(
        "fault",
        help="switch faults of a running emulator on or off, or list them",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    fault.add_argument("action", choices=("set", "clear", "list"))
    fault.add_argument("name", nargs="?", metavar="NAME")
    fault.add_argument("fault_options", nargs="*", metavar="key=value")
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
        "that an app has. The other options require --as-app.",
    )
    add = group.add_argument
    add("--as-app", action="store_true", help="run CMD as an app on Databricks Apps")
    add(
        "--user",
        type=_user,
        metavar="EMAIL",
        help="the user whom the proxy signs in; in a browser, the proxy's page "
        f"/_local/sign-in changes the user (default: {APP_DEFAULTS['user']})",
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
            f'"{text}" is not a name for this variable. Use letters, digits and '
            "underscores, and no variable that the platform sets itself."
        )
    return text


def read_app_options(options: argparse.Namespace) -> "AppOptions | None":
    """Return the options of ``--as-app``, or None if it was not given."""
    given = {
        name: value
        for name in APP_DEFAULTS
        if (value := getattr(options, name)) is not None
    }
    if not options.as_app:
        for name in given:
            raise ClientError(f"--{name.replace('_', '-')} requires --as-app.")
        return None
    if options.app_port and options.app_port == options.proxy_port:
        # The app could not listen, and the proxy would forward requests to itself.
        raise ClientError("--app-port and --proxy-port must differ.")
    from .as_app.run import AppOptions

    return AppOptions(**{**APP_DEFAULTS, **given})
