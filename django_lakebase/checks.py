"""
System checks: report invalid or doubtful settings before the first connection.

They use neither a database (no ``databases`` tag) nor the network, so ``runserver``
reports a wrong key before a query fails. Errors are settings with which no connection
can succeed. Warnings are settings that work, but perhaps not as intended. Each function
in `CHECKS` yields the messages for one alias; docs/reference/checks.md has a section
for each id.
"""

import difflib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from django.core.checks import (
    CheckMessage,
    Error,
    Warning,  # noqa: A004 - Django's name.
)
from django.db import connections

from .auth.credentials import MAX_LIFETIME
from .base import LakebaseMixin
from .config import libpq
from .config.pasted_values import clean, split_url
from .config.resolve import ENDPOINT_VARIABLES, OWN_OPTIONS
from .config.server_settings import TIME_LIMITS
from .config.sources import read_variable
from .config.target import Target, is_pooled_host
from .connect.errors import facts_of
from .connect.liveness import MAX_AGE_SHARE
from .contrib.databricks_apps import is_databricks_app
from .exceptions import SettingsError
from .failures.classify import failures_by_id
from .failures.render import summary_and_hint

# The page that each hint names; it has an anchor for each id.
CHECKS_PAGE = "docs/reference/checks.md"
# The keys of OPTIONS that Django and psycopg handle. Other keys are the engine's own or
# libpq's.
DJANGO_OPTIONS = (
    "assume_role",
    "isolation_level",
    "pool",
    "server_side_binding",
    "context",
    "cursor_factory",
    "prepare_threshold",
    "row_factory",
)
# The check id for each failure with which the first connection would be rejected. W002
# is only a warning, because an image is built without its containers' variables.
CHECK_IDS = {
    "endpoint-missing": "lakebase.W002",
    "endpoint-malformed": "lakebase.E001",
    "sslmode-missing": "lakebase.E002",
    "sslmode-weak": "lakebase.E002",
    "workspace-invalid": "lakebase.E003",
    "native-incomplete": "lakebase.E004",
    "host-socket": "lakebase.E005",
    "port-invalid": "lakebase.E006",
    "budget-invalid": "lakebase.E007",
    "pool-age": "lakebase.E008",
    "pool-package-missing": "lakebase.E009",
    "pool-invalid": "lakebase.E011",
    "options-invalid": "lakebase.E012",
    "hostaddr-invalid": "lakebase.E013",
    "value-invalid": "lakebase.E014",
    "libpq-variable": "lakebase.E015",
    "endpoint-ambiguous": "lakebase.E016",
    "password-is-token": "lakebase.E017",
    "host-provisioned": "lakebase.E018",
}
# A shorter secret may be contained in an unrelated variable by coincidence.
MIN_SECRET_LENGTH = 8
# The SDK's arguments that hold secrets.
SECRET_ARGUMENTS = ("client_secret", "token", "password", "azure_client_secret")


@dataclass(frozen=True, slots=True)
class Alias:
    """One entry of DATABASES with this engine; *target* is None if *error* is set."""

    label: str
    settings: dict[str, Any]
    target: Target | None
    error: SettingsError | None
    params: Mapping[str, Any]

    @property
    def options(self) -> Mapping[str, Any]:
        """The project's OPTIONS."""
        options = self.settings.get("OPTIONS")
        return options if isinstance(options, Mapping) else {}

    @property
    def is_pooled_host(self) -> bool:
        """Whether the host is a pooler of the service, judged by its name."""
        return self.target is not None and is_pooled_host(self.target.host)


def check_databases(*, app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Check the settings of all aliases that use this engine."""
    messages = [
        message for alias in _aliases() for check in CHECKS for message in check(alias)
    ]
    for message in messages:
        anchor = str(message.id).lower().replace(".", "-")
        message.hint = f"{message.hint} See {CHECKS_PAGE}#{anchor}."
    return messages


def _aliases() -> Iterator[Alias]:
    for name in connections:
        wrapper = connections[name]
        if not isinstance(wrapper, LakebaseMixin):
            continue
        target, error, params = None, None, {}
        try:
            target, params = wrapper.get_target(), wrapper.get_connection_params()
        except SettingsError as exc:
            error = exc
        label = f'DATABASES["{name}"]'
        yield Alias(label, wrapper.settings_dict, target, error, params)


def unusable_settings(alias: Alias) -> Iterator[CheckMessage]:
    """Yield E001 to E007, E011 to E017 or W002 if connecting would be rejected."""
    error = alias.error
    if error is not None:
        check_id = CHECK_IDS[error.failure_id]
        message_class = Warning if ".W" in check_id else Error
        yield message_class(
            f"{alias.label}: {error.summary}", hint=error.hint, id=check_id
        )


def unusable_pool(alias: Alias) -> Iterator[CheckMessage]:
    """Yield E008 or E009 if creating the pool would be rejected."""
    if not alias.options.get("pool"):
        return
    failures = []
    if alias.settings.get("CONN_MAX_AGE", 0) != 0:
        failures.append(failures_by_id()["pool-age"])
    if not importlib.util.find_spec("psycopg_pool"):
        failures.append(failures_by_id()["pool-package-missing"])
    for failure in failures:
        summary, hint = summary_and_hint(failure, {})
        yield Error(f"{alias.label}: {summary}", hint=hint, id=CHECK_IDS[failure.id])


def pooled_host(alias: Alias) -> Iterator[CheckMessage]:
    """Yield E010 for logins with a token at a pooler, which accepts only passwords."""
    if alias.target and alias.target.login and alias.is_pooled_host:
        yield Error(
            f'{alias.label}: the host "{alias.target.host}" is a pooler, and poolers '
            "do not accept tokens.",
            hint="Set HOST (PGHOST) to the direct host of the endpoint (without "
            '-pooler), or remove it; OPTIONS["pool"] provides a pool that refreshes '
            "tokens.",
            id="lakebase.E010",
        )


def unknown_options(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W001 for each key of OPTIONS that libpq would reject when connecting."""
    known = [*OWN_OPTIONS, *DJANGO_OPTIONS, *libpq.keywords()]
    for key in alias.options:
        if key not in known:
            matches = difflib.get_close_matches(key, known, n=1)
            yield Warning(
                f'{alias.label}: OPTIONS has the key "{key}", which Django, libpq and '
                "django_lakebase do not know.",
                hint=f'Did you mean "{matches[0]}"?' if matches else "Remove the key.",
                id="lakebase.W001",
            )


def password_and_endpoint(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W003 if a password and an endpoint are set: the endpoint is then unused."""
    is_token = alias.target is not None and alias.target.is_password_token
    has_password = alias.settings.get("PASSWORD") and not is_token
    if has_password and alias.options.get("endpoint"):
        yield Warning(
            f'{alias.label}: PASSWORD and OPTIONS["endpoint"] are both set; the '
            "password takes precedence, and no token is used.",
            hint='Remove PASSWORD to log in with tokens, or OPTIONS["endpoint"] to '
            "log in as a native role.",
            id="lakebase.W003",
        )


def age_above_cap(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W004 if CONN_MAX_AGE is above the age cap, which takes precedence."""
    age = alias.settings.get("CONN_MAX_AGE", 0)
    age_cap = MAX_LIFETIME.total_seconds() * MAX_AGE_SHARE
    is_long = age is None or (isinstance(age, (int, float)) and age > age_cap)
    has_password = alias.target is not None and alias.target.login is None
    if is_long and not has_password and not alias.options.get("pool"):
        yield Warning(
            f"{alias.label}: CONN_MAX_AGE is {age}, but the engine replaces a "
            f"connection after at most {age_cap:g} seconds, because credentials expire "
            "after an hour.",
            hint="Set it to 1800, for example, or silence this check.",
            id="lakebase.W004",
        )


def cursors_through_pooler(alias: Alias) -> Iterator[CheckMessage]:
    """
    Yield W005 for server-side cursors through a pooler.

    The pooler may run each statement on a different server connection.
    """
    if alias.is_pooled_host and not alias.settings.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield Warning(
            f"{alias.label}: the host is a pooler in transaction mode, but server-side "
            "cursors are enabled.",
            hint="Set DISABLE_SERVER_SIDE_CURSORS to True next to HOST; otherwise "
            "QuerySet.iterator() fails.",
            id="lakebase.W005",
        )


def written_secret(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W006 for each secret that no variable holds: it is probably hard-coded."""
    workspace = alias.options.get("workspace")
    arguments = workspace if isinstance(workspace, Mapping) else {}
    given = {
        f'OPTIONS["workspace"]["{key}"]': arguments.get(key) for key in SECRET_ARGUMENTS
    }
    given |= {
        "PASSWORD": alias.settings.get("PASSWORD"),
        'OPTIONS["password"]': alias.options.get("password"),
    }
    for name, secret in given.items():
        if secret and not _is_in_environment(str(secret).strip()):
            yield Warning(
                f"{alias.label}: {name} contains a secret that is in no environment "
                "variable, so it is probably hard-coded in the settings.",
                hint="Read it from the environment, or name a profile in "
                'OPTIONS["workspace"]. Silence this check if the secret comes from a '
                "secret manager.",
                id="lakebase.W006",
            )


def mixed_workspaces(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W007 if the endpoint and the login may be in different workspaces."""
    target, environment_host = alias.target, read_variable("DATABRICKS_HOST")
    # The host names the endpoint if nothing else does.
    setting = target and (target.endpoint_setting or target.host_setting)
    if target is None or setting not in (*ENDPOINT_VARIABLES, "PGHOST"):
        return
    selected = target.login.url if target.login else ""
    is_mixed = _normalized(selected) != _normalized(environment_host)
    if is_mixed and environment_host and alias.options.get("workspace"):
        yield Warning(
            f'{alias.label}: OPTIONS["workspace"] selects '
            f"{selected or 'a workspace'}, but "
            f"{setting} is read from the environment, where "
            f"DATABRICKS_HOST is {environment_host}.",
            hint='Set OPTIONS["endpoint"] next to the workspace, or '
            'remove OPTIONS["workspace"].',
            id="lakebase.W007",
        )


def token_as_password(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W010 if the password is a token, which works only until it expires."""
    if alias.target is not None and alias.target.is_password_token:
        failure = failures_by_id()["password-is-token"]
        summary, hint = summary_and_hint(failure, facts_of(alias.target))
        yield Warning(f"{alias.label}: {summary}", hint=hint, id="lakebase.W010")


def unverified_certificate(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W011 if the token is sent to a server whose certificate is not verified."""
    target = alias.target
    if target is None or target.login is None or target.sslrootcert:
        return
    if target.sslmode == "require":
        name = 'OPTIONS["sslmode"]' if alias.options.get("sslmode") else "PGSSLMODE"
        yield Warning(
            f"{alias.label}: {name} is require, so the server's certificate is not "
            "verified, and any server that answers at the host's address gets the "
            "token.",
            hint="Run manage.py lakebase_check, which tries verify-full. If that "
            'succeeds, set OPTIONS["sslmode"] to it. Silence this check if the network '
            "is trusted.",
            id="lakebase.W011",
        )


def no_time_limits(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W012 on Databricks Apps if nothing limits the time of statements."""
    if not is_databricks_app() or alias.target is None or alias.is_pooled_host:
        return
    if not any(name in alias.target.libpq_options for name in TIME_LIMITS):
        names = " and ".join(f'OPTIONS["{name}"]' for name in TIME_LIMITS)
        yield Warning(
            f"{alias.label}: no time limit is set for statements and transactions. "
            "Databricks Apps ends a request after 120 seconds, but its statement "
            "continues and keeps its locks.",
            hint=f"Set {names}, in seconds; for example, to 60 and 30.",
            id="lakebase.W012",
        )


def ignored_variables(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W008 for variables of libpq that have no effect on this alias."""
    if alias.target is None:
        return
    detail, hint = libpq.ignored_variables_warning(alias.params, os.environ)
    if detail:
        yield Warning(f"{alias.label}: {detail}.", hint=hint, id="lakebase.W008")


def unreadable_dates(alias: Alias) -> Iterator[CheckMessage]:
    """Yield W009 if libpq sends a PGDATESTYLE other than ISO, which psycopg needs."""
    detail, hint = libpq.date_style_warning(os.environ)
    if detail:
        yield Warning(f"{alias.label}: {detail}.", hint=hint, id="lakebase.W009")


CHECKS = (
    unusable_settings,
    unusable_pool,
    pooled_host,
    unknown_options,
    password_and_endpoint,
    age_above_cap,
    cursors_through_pooler,
    written_secret,
    mixed_workspaces,
    ignored_variables,
    unreadable_dates,
    token_as_password,
    unverified_certificate,
    no_time_limits,
)


def _is_in_environment(secret: str) -> bool:
    """Return whether a variable equals *secret* or, like a URL, contains it."""
    for value in os.environ.values():
        parts = split_url(value) if "://" in value else None
        password = (parts and parts.password) or ""
        if secret in (clean(value), unquote(password)):
            return True
        if len(secret) >= MIN_SECRET_LENGTH and secret in unquote(value):
            return True
    return False


def _normalized(url: str) -> str:
    """Return *url* in lower case, without scheme and trailing slash."""
    return url.lower().rpartition("://")[2].rstrip("/")
