"""
How a client of the SDK is made from settings or environment.

The SDK's own retries are switched off (300 seconds by default): the connect ladder and
the credential cache decide when to try again. What it passes over in silence is said.
"""

import os
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

# Seconds. The SDK takes 0 for "not set", which is 300.
RETRY_TIMEOUT = 1


def new_client(login: Login) -> "WorkspaceClient":
    """Return a client that logs in as *login* says; raises the SDK's errors."""
    if login.path:
        return _called(login.path)
    from databricks.sdk import WorkspaceClient

    try:
        return WorkspaceClient(config=_config(login.arguments))
    except ValueError as exc:
        if "Invalid URL 'None'" in str(exc):
            _reach(login.url)
        if "cannot configure default credentials" in str(exc):
            _find_profile(login.arguments)
        raise


def _find_profile(arguments: Mapping[str, Any] | None) -> None:
    """Raise that the profile's file is missing: the SDK passes over it in silence."""
    own = arguments or {
        "profile": variable("DATABRICKS_CONFIG_PROFILE"),
        "config_file": variable("DATABRICKS_CONFIG_FILE"),
    }
    file = own.get("config_file") or "~/.databrickscfg"
    if own.get("profile") and not os.access(Path(file).expanduser(), os.R_OK):
        raise Known("unknown-profile", seen=f"there is no file {file} to be read")


def _reach(url: str) -> None:
    """Raise why *url* cannot be reached: newer SDKs only log it, and go on."""
    import requests

    if url:
        base = url if "://" in url else f"https://{url}"
        address = f"{base}/.well-known/databricks-config"
        answer = requests.get(address, timeout=CALL_BOUND)
        if not answer.ok:
            raise requests.HTTPError(f"{answer.status_code}: {answer.text[:300]}")


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
        product="django-lakebase", product_version=__version__, clock=Impatient(), **own
    )


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
