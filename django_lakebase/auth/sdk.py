"""
The only module that imports databricks-sdk: creates clients, explains failed logins.

Importing the SDK takes long, so it is imported at first use, in the thread that needs
it, and lazily: `lazy_sdk` keeps its package from loading all services.

The SDK's own retries (300 seconds by default) are switched off: the retry policy and
the credential cache decide when to try again. Where the SDK says only that it found no
way to log in, `explain_login` finds the reason.
"""

import importlib
import logging
import os
import re
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any

from django.utils.module_loading import import_string

from django_lakebase import __version__, process
from django_lakebase.config.pasted_values import (
    clean,
    parse_boolean,
    parse_workspace_host,
)
from django_lakebase.config.sources import read_variable
from django_lakebase.config.target import Login
from django_lakebase.failures.classify import KnownFailure

from .singleflight import CALL_TIMEOUT

if TYPE_CHECKING:
    from databricks.sdk import WorkspaceClient
    from databricks.sdk.config import Config
    from databricks.sdk.service.iam import CurrentUserAPI
    from databricks.sdk.service.oauth2 import ServicePrincipalSecretsProxyAPI
    from databricks.sdk.service.postgres import Role

logger = logging.getLogger("django_lakebase")

DEFAULT_FILE = "~/.databrickscfg"
DATABRICKS_CLI = "databricks-cli"
# The SDK's login methods that run a program, with the program and its login command.
PROGRAMS = {
    DATABRICKS_CLI: ("databricks", "databricks auth login"),
    "azure-cli": ("az", "az login"),
    "google-id": ("gcloud", "gcloud auth application-default login"),
}
NO_CREDENTIALS = "cannot configure default credentials"
_NOT_FOUND = rf"{NO_CREDENTIALS}|profile configured"
# Messages of the SDK and of Google's library when a program returns no token.
_PROGRAM_FAILED = (
    rf"{NO_CREDENTIALS}|cannot (get access token|unmarshal CLI result|configure CLI)|"
    r"\[Errno (2|8|13)\]|"
    r"default credentials were not found|Reauthentication is needed|invalid_grant"
)
# In seconds. The SDK takes 0 for "not set" and would use its default of 300.
RETRY_TIMEOUT = 1
CREDENTIALS_PATH = "/api/2.0/postgres/credentials"
# Whether to import the SDK lazily.
SWITCH = "DJANGO_LAKEBASE_LEAN_SDK"
# Attempts to import the SDK, and the seconds between them.
IMPORT_ATTEMPTS = 5
IMPORT_PAUSE = 0.05


def import_sdk(login: Login | None = None, *services: str) -> None:
    """
    Import what requests for *login* use of the SDK; raises ImportError.

    *services* are modules that they use besides ``postgres``, such as ``iam``.
    """
    names = ("postgres", *services)
    modules = ["core", *(f"service.{name}" for name in names)]
    with process.import_lock:
        if (login is not None and login.path) or not _import_lazily(modules):
            _import_whole()
        from databricks.sdk.config import Config

        # Build the list of the SDK's settings under the lock: if two threads do so at
        # the same time, they fail with "dictionary changed size during iteration".
        Config.attributes()


def _import_lazily(modules: list[str]) -> bool:
    """Import *modules* of the SDK and no others; return whether that succeeded."""
    if parse_boolean(read_variable(SWITCH) or "on") is False:
        return False
    try:
        from . import lazy_sdk

        lazy_sdk.import_package()
        for name in modules:
            importlib.import_module(f"{lazy_sdk.PACKAGE}.{name}")
    except Exception as exc:  # noqa: BLE001 - the plain import is always possible.
        _report_surprise(exc)
        return False
    return True


def _import_whole() -> None:
    """
    Import the whole SDK; try again if another thread imported it at the same time.

    If two threads wait for each other's modules, Python ends one of the imports with an
    error. A pause lets the other thread continue, and the next attempt waits for it.
    """
    for attempt in range(IMPORT_ATTEMPTS):
        try:
            importlib.import_module("databricks.sdk")
            # Loads the rest of a lazily imported package.
            from databricks.sdk import WorkspaceClient  # noqa: F401
        except Exception as exc:
            is_missing = isinstance(exc, ModuleNotFoundError)
            if is_missing or attempt == IMPORT_ATTEMPTS - 1:
                raise
            time.sleep(IMPORT_PAUSE)
        else:
            return


def _report_surprise(exc: BaseException) -> None:
    logger.debug("using the whole databricks-sdk, because of %r", exc)


@process.run_in_child
def _replace_shared_clients() -> None:
    """
    Replace the HTTP clients that functions of the SDK have as default arguments.

    They keep connections open, and the SDK uses them to find the login's URL. Processes
    that share a connection read each other's responses, so a login would wait for a
    response that another process has read. The SDK has no public way to replace them.
    """
    oauth = sys.modules.get("databricks.sdk.oauth")
    client_class = getattr(oauth, "_BaseClient", None)
    if client_class is None:
        return
    for function in list(vars(oauth).values()):
        if isinstance(function, FunctionType) and function.__defaults__:
            function.__defaults__ = tuple(
                client_class() if isinstance(default, client_class) else default
                for default in function.__defaults__
            )


class CredentialsFilter(logging.Filter):
    """
    A filter that removes the bodies of credentials requests from the SDK's records.

    The SDK truncates them to 96 bytes or more, which can be the beginning of a token.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Keep the lines with the path and the status."""
        try:
            request, *lines = record.getMessage().split("\n")
        except Exception:  # noqa: BLE001 - a handler reports it; a filter must not raise.
            return True
        if CREDENTIALS_PATH in request:
            statuses = [line for line in lines if re.match(r"< [1-5]\d\d ", line)]
            record.msg = "\n".join([request, *statuses[:1], "< **REDACTED**"])
            record.args = ()
        return True


credentials_filter = CredentialsFilter()


class Client:
    """
    The parts of the SDK's WorkspaceClient that the engine uses.

    Made in the same way as there, but without the classes of all other services.
    """

    def __init__(self, config: "Config") -> None:
        from databricks.sdk.core import ApiClient
        from databricks.sdk.service.postgres import PostgresAPI

        self.config = config.copy()
        self._api_client = ApiClient(self.config)
        self.postgres = PostgresAPI(self._api_client)

    @property
    def current_user(self) -> "CurrentUserAPI":
        """The API that names the identity of the login."""
        try:
            from databricks.sdk.service.iam import CurrentUserAPI
        except ImportError as exc:
            return _whole_client(self.config, exc).current_user
        return CurrentUserAPI(self._api_client)

    @property
    def service_principal_secrets_proxy(self) -> "ServicePrincipalSecretsProxyAPI":
        """The API that lists the client secrets of a service principal."""
        try:
            from databricks.sdk.service.oauth2 import ServicePrincipalSecretsProxyAPI
        except ImportError as exc:
            return _whole_client(self.config, exc).service_principal_secrets_proxy
        return ServicePrincipalSecretsProxyAPI(self._api_client)


def new_client(login: Login) -> "Client | WorkspaceClient":
    """Return a client for *login*; raises the SDK's errors or KnownFailure."""
    logging.getLogger("databricks.sdk").addFilter(credentials_filter)
    if login.path:
        return _client_from_callable(login.path)
    try:
        config = _config(login.arguments)
    except (ValueError, PermissionError, KnownFailure) as exc:
        if not isinstance(exc, ValueError) or re.search(_NOT_FOUND, str(exc)):
            _check_profile_file(login.arguments)
        raise
    try:
        return Client(config)
    except (ImportError, AttributeError) as exc:
        return _whole_client(config, exc)


def _whole_client(config: "Config", exc: BaseException) -> "WorkspaceClient":
    """Return the SDK's own client, because *exc* was raised without it."""
    _report_surprise(exc)
    from databricks.sdk import WorkspaceClient

    return WorkspaceClient(config=config)


def _check_profile_file(arguments: Mapping[str, Any] | None) -> None:
    """Raise KnownFailure for a missing or unreadable file, which the SDK ignores."""
    settings = arguments or {
        "host": read_variable("DATABRICKS_HOST"),
        "profile": read_variable("DATABRICKS_CONFIG_PROFILE"),
        "config_file": read_variable("DATABRICKS_CONFIG_FILE"),
    }
    if settings.get("host") and not settings.get("profile"):
        return  # The SDK does not read the file in this case.
    file = settings.get("config_file") or DEFAULT_FILE
    try:
        Path(file).expanduser().open().close()
    except FileNotFoundError:
        if settings.get("profile"):
            seen = f"the file {file} does not exist"
            raise KnownFailure("unknown-profile", seen=seen) from None
    except OSError as exc:
        raise KnownFailure("profile-unreadable", seen=str(exc), file=file) from exc


def _check_reachable(config: "Config", *, check_status: bool = False) -> None:
    """
    Raise the exception of the requests package if the workspace cannot be reached.

    With *check_status*, also raises requests.HTTPError for an HTTP error status.
    """
    import requests

    address = f"{config.host}/.well-known/databricks-config"
    answer = requests.get(address, timeout=CALL_TIMEOUT)
    if check_status and not answer.ok:
        raise requests.HTTPError(f"{answer.status_code}: {answer.text[:300]}")


def role_spec(name: str, identity_type: str) -> "Role":
    """Return the request for a Postgres role that accepts tokens."""
    from databricks.sdk.service.postgres import Role, RoleIdentityType, RoleRoleSpec

    kind = RoleIdentityType(identity_type)
    return Role(spec=RoleRoleSpec(identity_type=kind, postgres_role=name))


def explain_login(config: "Config", exc: BaseException) -> KnownFailure | None:
    """Return the reason for a failed login, or None if the SDK's *exc* names it."""
    text = str(exc)
    method = config.auth_type or text.partition(":")[0]
    is_generic = NO_CREDENTIALS in text
    if is_generic and config.profile and not config.host:
        return _incomplete_profile(config, "names no host")
    if method in PROGRAMS and re.search(_PROGRAM_FAILED, text):
        return _program_failure(config, method, text, is_generic=is_generic)
    if not is_generic:
        return None
    chosen = f'auth_type "{config.auth_type}"' if config.auth_type else ""
    if config.profile and chosen:
        return _incomplete_profile(config, f"names no login that {chosen} can use")
    if config.profile:
        return _incomplete_profile(config, "names a host but no login")
    return KnownFailure("no-login", seen=f"{chosen}: {text}") if chosen else None


def _incomplete_profile(config: "Config", problem: str) -> KnownFailure:
    file = config.config_file or DEFAULT_FILE
    return KnownFailure(
        "profile-incomplete", profile=config.profile, file=file, problem=problem
    )


def _program_failure(
    config: "Config", method: str, text: str, *, is_generic: bool
) -> KnownFailure:
    """
    Return the failure of a program: missing, too old, or logged out.

    *is_generic* means that the SDK's *text* says only that it found no login.
    """
    import shlex  # Imported here, because only this failure needs it.

    program, command = PROGRAMS[method]
    if method == DATABRICKS_CLI:
        program = config.databricks_cli_path or program
        option, value = (
            ("profile", config.profile) if config.profile else ("host", config.host)
        )
        command = f"{command} --{option} {shlex.quote(value)}"
    path = shutil.which(program)
    facts = {"method": method, "program": program, "command": command}
    # The SDK silently ignores the program of the databricks-cli package from PyPI.
    if path is not None and method == DATABRICKS_CLI and is_generic:
        return KnownFailure(
            "cli-missing", seen=f"{path} is an older Databricks CLI", **facts
        )
    if path is None:
        return KnownFailure("cli-missing", seen="" if is_generic else text, **facts)
    return KnownFailure(
        "cli-login", seen="" if is_generic else text, path=path, **facts
    )


def _client_from_callable(path: str) -> "WorkspaceClient":
    try:
        function = import_string(path)
    except ImportError as exc:
        problem = f'is "{path}", which cannot be imported ({exc})'
        raise KnownFailure("workspace-invalid", problem=problem) from exc
    client = function()
    if not hasattr(client, "postgres"):
        problem = f'is "{path}", which returned a {type(client).__name__}'
        raise KnownFailure("workspace-invalid", problem=problem)
    return client  # type: ignore[no-any-return]


def _config(arguments: Mapping[str, Any] | None) -> Any:
    from databricks.sdk.clock import RealClock
    from databricks.sdk.config import Config

    class SkippingClock(RealClock):
        """A clock that skips sleeps, so that the SDK's retries time out immediately."""

        skipped = 0.0

        def time(self) -> float:
            return super().time() + self.skipped

        def sleep(self, seconds: float) -> None:
            self.skipped += seconds

    class SettingsOnly(Config):
        """A Config that ignores the environment, which may name another workspace."""

        def _load_from_env(self) -> None:
            """Load nothing; the SDK's own method lets variables override a profile."""

    # Call this on Config first: it caches the list, which the subclass then inherits.
    known = {attribute.name for attribute in Config.attributes()}
    unknown = sorted(set(arguments or ()) - known)
    if unknown:
        names = ", ".join(unknown)
        raise KnownFailure("workspace-invalid", problem=f"has unknown keys: {names}")
    config_class = Config if arguments is None else SettingsOnly
    config_arguments = {
        "retry_timeout_seconds": RETRY_TIMEOUT,
        "http_timeout_seconds": CALL_TIMEOUT,
        **_clean_arguments(arguments, Config, known),
        # Headers contain the login token. The SDK up to 0.162 logs none in spite of
        # this setting, but would not mask the token.
        "debug_headers": False,
    }
    return config_class(
        product="django-lakebase",
        product_version=__version__,
        clock=SkippingClock(),
        credentials_strategy=_strategy(),
        **config_arguments,
    )


def _strategy() -> Any:
    """Return the SDK's default strategy for logins, with errors that name a reason."""
    from databricks.sdk.credentials_provider import DefaultCredentials

    class ExplainingCredentials(DefaultCredentials):
        """The SDK's default strategy; explains errors that name no reason."""

        def __call__(self, config: "Config") -> Any:
            # Newer versions of the SDK fetch the discovery URL first, but only log a
            # failure. Older versions retry their first request for 5 minutes.
            if config.host and not getattr(config, "discovery_url", None):
                _check_reachable(config)
            try:
                return super().__call__(config)
            except ValueError as exc:
                if "Invalid URL 'None'" in str(exc):
                    _check_reachable(config, check_status=True)
                known = explain_login(config, exc)
                if known is not None:
                    raise known from exc
                raise

    return ExplainingCredentials()


def _clean_arguments(
    arguments: Mapping[str, Any] | None, config_class: type, known: set[str]
) -> dict[str, Any]:
    """
    Return the SDK's arguments without stray quotes, blanks and URL paths.

    If *arguments* is None, the SDK reads environment variables itself; returns only the
    values that it would misread. *known* are the names of arguments that this version
    of the SDK accepts.
    """
    if arguments is None:
        raw = {
            attribute.name: os.environ.get(attribute.env or "", "")
            for attribute in config_class.attributes()  # type: ignore[attr-defined]
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
