"""
How a client of the SDK is made from settings or environment.

The SDK's own retries are switched off (300 seconds by default): the connect ladder and
the credential cache decide when to try again. What it passes over in silence is said.
"""

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import import_string

from . import __version__
from .config import Login, variable
from .errors import Known
from .flight import CALL_BOUND
from .parsing import clean, parse_workspace_host

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config

DEFAULT_FILE = "~/.databrickscfg"
DATABRICKS_CLI = "databricks-cli"
# The SDK's methods that log in through a program, the program, and how it logs in.
PROGRAMS = {
    DATABRICKS_CLI: ("databricks", "databricks auth login"),
    "azure-cli": ("az", "az login"),
    "google-id": ("gcloud", "gcloud auth application-default login"),
}
NO_CREDENTIALS = "cannot configure default credentials"
_NOT_FOUND = rf"{NO_CREDENTIALS}|profile configured"
# What the SDK and Google's library say when a program gives no token.
_PROGRAM_FAILED = (
    rf"{NO_CREDENTIALS}|cannot (get access token|unmarshal CLI result|configure CLI)|"
    r"\[Errno (2|8|13)\]|"
    r"default credentials were not found|Reauthentication is needed|invalid_grant"
)
# Seconds. The SDK takes 0 for "not set", which is 300.
RETRY_TIMEOUT = 1


def new_client(login: Login) -> "WorkspaceClient":
    """Return a client that logs in as *login* says; raises the SDK's errors."""
    if login.path:
        return _called(login.path)
    from databricks.sdk import WorkspaceClient

    try:
        return WorkspaceClient(config=_config(login.arguments))
    except (ValueError, PermissionError, Known) as exc:
        if not isinstance(exc, ValueError) or re.search(_NOT_FOUND, str(exc)):
            _find_profile(login.arguments)
        raise


def _find_profile(arguments: Mapping[str, Any] | None) -> None:
    """Raise why the profiles' file cannot be read: the SDK ignores it silently."""
    own = arguments or {
        "host": variable("DATABRICKS_HOST"),
        "profile": variable("DATABRICKS_CONFIG_PROFILE"),
        "config_file": variable("DATABRICKS_CONFIG_FILE"),
    }
    if own.get("host") and not own.get("profile"):
        return  # The SDK does not read the file then.
    file = own.get("config_file") or DEFAULT_FILE
    try:
        Path(file).expanduser().open().close()
    except FileNotFoundError:
        if own.get("profile"):
            seen = f"there is no file {file} to be read"
            raise Known("unknown-profile", seen=seen) from None
    except OSError as exc:
        raise Known("profile-unreadable", seen=str(exc), file=file) from exc


def _reach(config: "Config", *, judge: bool = False) -> None:
    """Raise why the workspace cannot be reached; with *judge*, why it refuses."""
    import requests

    address = f"{config.host}/.well-known/databricks-config"
    answer = requests.get(address, timeout=CALL_BOUND)
    if judge and not answer.ok:
        raise requests.HTTPError(f"{answer.status_code}: {answer.text[:300]}")


def explain_login(config: "Config", exc: BaseException) -> Known | None:
    """Return what is missing for a login, where the SDK's *exc* does not say it."""
    text = str(exc)
    method = config.auth_type or text.partition(":")[0]
    is_silent = NO_CREDENTIALS in text
    if is_silent and config.profile and not config.host:
        return _incomplete(config, "names no host")
    if method in PROGRAMS and re.search(_PROGRAM_FAILED, text):
        return _program_failure(config, method, text, is_silent=is_silent)
    if not is_silent:
        return None
    chosen = f'auth_type "{config.auth_type}"' if config.auth_type else ""
    if config.profile and chosen:
        return _incomplete(config, f"names no login that {chosen} can use")
    if config.profile:
        return _incomplete(config, "names a host and no login")
    return Known("no-login", seen=f"{chosen}: {text}") if chosen else None


def _incomplete(config: "Config", problem: str) -> Known:
    file = config.config_file or DEFAULT_FILE
    return Known(
        "profile-incomplete", profile=config.profile, file=file, problem=problem
    )


def _program_failure(
    config: "Config", method: str, text: str, *, is_silent: bool
) -> Known:
    """Return that the program of *method* is missing, or logged out."""
    program, command = PROGRAMS[method]
    if method == DATABRICKS_CLI:
        program = config.databricks_cli_path or program
        by, name = (
            ("profile", config.profile) if config.profile else ("host", config.host)
        )
        command = f"{command} --{by} {shlex.quote(name)}"
    path = shutil.which(program)
    facts = {"method": method, "program": program, "command": command}
    # The SDK passes over the databricks-cli package of PyPI in silence.
    if path is not None and method == DATABRICKS_CLI and is_silent:
        return Known("cli-missing", seen=f"{path} is an older Databricks CLI", **facts)
    if path is None:
        return Known("cli-missing", seen="" if is_silent else text, **facts)
    return Known("cli-login", seen="" if is_silent else text, path=path, **facts)


def _called(path: str) -> "WorkspaceClient":
    try:
        function = import_string(path)
    except ImportError as exc:
        problem = f'is "{path}", which cannot be imported ({exc})'
        raise Known("workspace-invalid", problem=problem) from exc
    client = function()
    if not hasattr(client, "postgres"):
        problem = f'is "{path}", which returned a {type(client).__name__}'
        raise Known("workspace-invalid", problem=problem)
    return client  # type: ignore[no-any-return]


def _config(arguments: Mapping[str, Any] | None) -> Any:
    from databricks.sdk.clock import RealClock
    from databricks.sdk.config import Config

    class Impatient(RealClock):
        """Lets the SDK believe that it has slept before a retry."""

        slept = 0.0

        def time(self) -> float:
            return super().time() + self.slept

        def sleep(self, seconds: float) -> None:
            self.slept += seconds

    class SettingsOnly(Config):
        """Takes nothing from the environment, which may speak of another workspace."""

        def _load_from_env(self) -> None:
            """Load nothing: by default the environment wins over a profile."""

    # Asked of Config first: it keeps the list, and the subclass inherits it.
    known = {attribute.name for attribute in Config.attributes()}
    unknown = sorted(set(arguments or ()) - known)
    if unknown:
        named = ", ".join(unknown)
        raise Known("workspace-invalid", problem=f"has unknown keys: {named}")
    kind = Config if arguments is None else SettingsOnly
    own = {
        "retry_timeout_seconds": RETRY_TIMEOUT,
        "http_timeout_seconds": CALL_BOUND,
        **_tidied(arguments, Config, known),
    }
    return kind(
        product="django-lakebase",
        product_version=__version__,
        clock=Impatient(),
        credentials_strategy=_strategy(),
        **own,
    )


def _strategy() -> Any:
    """Return the SDK's own choice among its methods of login, with better errors."""
    from databricks.sdk.credentials_provider import DefaultCredentials

    class Explained(DefaultCredentials):
        """Names the cause, where the SDK only says that there is no login."""

        def __call__(self, config: "Config") -> Any:
            # Newer SDKs ask the host for this URL first, and only log why that failed.
            # Older ones do not ask, and repeat their first request for 5 minutes.
            if config.host and not getattr(config, "discovery_url", None):
                _reach(config)
            try:
                return super().__call__(config)
            except ValueError as exc:
                if "Invalid URL 'None'" in str(exc):
                    _reach(config, judge=True)
                known = explain_login(config, exc)
                if known is not None:
                    raise known from exc
                raise

    return Explained()


def _tidied(
    arguments: Mapping[str, Any] | None, kind: type, known: set[str]
) -> dict[str, Any]:
    """
    Return the SDK's arguments as they were meant, where they were pasted.

    Without *arguments*, those of the variables that the SDK would misread.
    """
    if arguments is None:
        raw = {
            attribute.name: os.environ.get(attribute.env or "", "")
            for attribute in kind.attributes()  # type: ignore[attr-defined]
        }
        given: dict[str, Any] = {name: clean(value) for name, value in raw.items()}
    else:
        raw, given = {}, dict(arguments)
    host, workspace_id = parse_workspace_host(str(given.get("host") or ""))
    if host:
        given["host"] = host
    if workspace_id and "workspace_id" in known and not given.get("workspace_id"):
        given["workspace_id"] = workspace_id
    return {name: value for name, value in given.items() if value != raw.get(name)}
