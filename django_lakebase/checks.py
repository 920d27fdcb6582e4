"""
System checks: what the settings alone show wrong, before anything connects.

They run without a database (no ``databases`` tag) and without network: a wrong key
should be known at ``runserver``, not at the first query. What no connection can
survive is an error; what works, and perhaps not as meant, is a warning.
docs/reference/checks.md has a section for each id.
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

from . import config, libpq
from .base import LONGEST_SHARE, LakebaseMixin
from .credentials import LONGEST_LIFE
from .errors import SettingsError, table, words
from .parsing import clean, split_url

# The keys that Django and psycopg take themselves; the rest is libpq's.
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
# The ids of what the first connection would refuse; W002 is for what may only be
# missing yet: an image is built without the variables that its containers get.
REFUSALS = {
    "endpoint-missing": "lakebase.W002",
    "host-without-endpoint": "lakebase.W002",
    "endpoint-malformed": "lakebase.E001",
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
}
# A shorter secret may be part of a variable by accident.
LEAST_SECRET = 8
# The SDK's arguments that are secrets.
SECRET_ARGUMENTS = ("client_secret", "token", "password", "azure_client_secret")


@dataclass(frozen=True, slots=True)
class Alias:
    """One entry of DATABASES with this engine; *target* is None if it has none."""

    label: str
    settings: dict[str, Any]
    target: config.Target | None
    refusal: SettingsError | None
    params: Mapping[str, Any]

    @property
    def options(self) -> Mapping[str, Any]:
        """The project's OPTIONS."""
        options = self.settings.get("OPTIONS")
        return options if isinstance(options, Mapping) else {}

    @property
    def workspace(self) -> Mapping[str, Any]:
        """The workspace's arguments, where the settings give some."""
        workspace = self.options.get("workspace")
        return workspace if isinstance(workspace, Mapping) else {}

    @property
    def is_pooled_host(self) -> bool:
        """Whether the host is one of the service's poolers, by its name."""
        host = self.target.host if self.target else ""
        return host.partition(".")[0].endswith("-pooler")


def check_databases(*, app_configs: Any = None, **kwargs: Any) -> list[CheckMessage]:
    """Report what is wrong with the aliases that use this engine."""
    return [
        message for alias in _aliases() for find in FINDINGS for message in find(alias)
    ]


def _aliases() -> Iterator[Alias]:
    for name in connections:
        wrapper = connections[name]
        if not isinstance(wrapper, LakebaseMixin):
            continue
        target, refusal, params = None, None, {}
        try:
            target, params = wrapper.get_target(), wrapper.get_connection_params()
        except SettingsError as exc:
            refusal = exc
        label = f'DATABASES["{name}"]'
        yield Alias(label, wrapper.settings_dict, target, refusal, params)


def unusable_settings(alias: Alias) -> Iterator[CheckMessage]:
    """E001 to E007, E011 to E017, W002: what the first connection would refuse."""
    refusal = alias.refusal
    if refusal is not None:
        number = REFUSALS[refusal.failure_id]
        kind = Warning if ".W" in number else Error
        yield kind(f"{alias.label}: {refusal.finding}", hint=refusal.mend, id=number)


def unusable_pool(alias: Alias) -> Iterator[CheckMessage]:
    """E008, E009: what opening the pool would refuse."""
    if not alias.options.get("pool"):
        return
    failures = []
    if alias.settings.get("CONN_MAX_AGE", 0) != 0:
        failures.append(table()["pool-age"])
    if not importlib.util.find_spec("psycopg_pool"):
        failures.append(table()["pool-package-missing"])
    for failure in failures:
        means, mend = words(failure, {})
        yield Error(f"{alias.label}: {means}", hint=mend, id=REFUSALS[failure.id])


def pooled_host(alias: Alias) -> Iterator[CheckMessage]:
    """E010: the service's pooler takes native passwords only."""
    if alias.target and not alias.target.is_native and alias.is_pooled_host:
        yield Error(
            f'{alias.label}: the host "{alias.target.host}" is a pooler, and poolers '
            "take no tokens.",
            hint="Set HOST (PGHOST) to the endpoint's direct host, without -pooler, "
            'or remove it; OPTIONS["pool"] gives a pool that renews tokens.',
            id="lakebase.E010",
        )


def unknown_options(alias: Alias) -> Iterator[CheckMessage]:
    """W001: libpq would refuse it at the first connection."""
    known = [*config.OWN_OPTIONS, *DJANGO_OPTIONS, *libpq.keywords()]
    for key in alias.options:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            yield Warning(
                f'{alias.label}: OPTIONS holds "{key}", which neither Django, libpq '
                "nor django_lakebase knows.",
                hint=f'Did you mean "{near[0]}"?' if near else "Remove it.",
                id="lakebase.W001",
            )


def password_and_endpoint(alias: Alias) -> Iterator[CheckMessage]:
    """W003: a native login asks for no credential, so the endpoint is idle."""
    is_token = alias.target is not None and alias.target.is_password_token
    has_password = alias.settings.get("PASSWORD") and not is_token
    if has_password and alias.options.get("endpoint"):
        yield Warning(
            f'{alias.label}: PASSWORD and OPTIONS["endpoint"] are both set; the '
            "password wins, and no token is used.",
            hint='Remove PASSWORD to log in with tokens, or OPTIONS["endpoint"] to '
            "log in as a native role.",
            id="lakebase.W003",
        )


def age_above_cap(alias: Alias) -> Iterator[CheckMessage]:
    """W004: connections are replaced before their credential ends."""
    age = alias.settings.get("CONN_MAX_AGE", 0)
    longest = LONGEST_LIFE.total_seconds() * LONGEST_SHARE
    is_long = age is None or (isinstance(age, (int, float)) and age > longest)
    is_native = alias.target is not None and alias.target.is_native
    if is_long and not is_native and not alias.options.get("pool"):
        yield Warning(
            f"{alias.label}: CONN_MAX_AGE is {age}, and a connection is replaced "
            f"after {longest:g} seconds at most: a credential lives for an hour.",
            hint="Set it to 1800, say, or silence this check: the cap does no harm.",
            id="lakebase.W004",
        )


def cursors_through_pooler(alias: Alias) -> Iterator[CheckMessage]:
    """W005: each statement may get another server connection of the pooler's."""
    if alias.is_pooled_host and not alias.settings.get("DISABLE_SERVER_SIDE_CURSORS"):
        yield Warning(
            f"{alias.label}: the host is a pooler in transaction mode, and server-side "
            "cursors are on.",
            hint="Set DISABLE_SERVER_SIDE_CURSORS to True next to HOST: QuerySet."
            "iterator() fails without it.",
            id="lakebase.W005",
        )


def written_secret(alias: Alias) -> Iterator[CheckMessage]:
    """W006: a secret that no variable holds was probably typed into the settings."""
    given = {
        f'OPTIONS["workspace"]["{k}"]': alias.workspace.get(k) for k in SECRET_ARGUMENTS
    }
    given |= {
        "PASSWORD": alias.settings.get("PASSWORD"),
        'OPTIONS["password"]': alias.options.get("password"),
    }
    for name, secret in given.items():
        if secret and not _is_in_environment(str(secret).strip()):
            yield Warning(
                f"{alias.label}: {name} holds a secret that is in no environment "
                "variable, so it is probably written in the settings.",
                hint="Read it from the environment, or name a profile in "
                'OPTIONS["workspace"]. Silence this check if it comes from a secret '
                "manager.",
                id="lakebase.W006",
            )


def mixed_workspaces(alias: Alias) -> Iterator[CheckMessage]:
    """W007: an endpoint of one workspace, and a login to another."""
    elsewhere, target = config.variable("DATABRICKS_HOST"), alias.target
    is_from_settings = bool(alias.options.get("workspace"))
    if target is None or not is_from_settings or not elsewhere:
        return
    is_from_environment = target.endpoint_setting in config.ENDPOINT_VARIABLES
    own = target.login.url if target.login else ""
    if is_from_environment and _bare(own) != _bare(elsewhere):
        yield Warning(
            f'{alias.label}: OPTIONS["workspace"] leads to {own or "a workspace"} and '
            f"{target.endpoint_setting} is read from the environment, which speaks of "
            f"{elsewhere}.",
            hint='Name the endpoint next to the workspace, in OPTIONS["endpoint"]; or '
            'remove OPTIONS["workspace"].',
            id="lakebase.W007",
        )


def token_as_password(alias: Alias) -> Iterator[CheckMessage]:
    """W010: it works until the token expires."""
    if alias.target is not None and alias.target.is_password_token:
        failure = table()["password-is-token"]
        means, mend = words(failure, alias.target.facts())
        yield Warning(f"{alias.label}: {means}", hint=mend, id="lakebase.W010")


def ignored_variables(alias: Alias) -> Iterator[CheckMessage]:
    """W008: variables of libpq that have no effect here."""
    detail, hint = libpq.warning(alias.params, os.environ) if alias.target else ("", "")
    if detail:
        yield Warning(f"{alias.label}: {detail}.", hint=hint, id="lakebase.W008")


def unreadable_dates(alias: Alias) -> Iterator[CheckMessage]:
    """W009: libpq sends PGDATESTYLE to the server, and psycopg reads ISO only."""
    detail, hint = libpq.date_style_warning(os.environ)
    if detail:
        yield Warning(f"{alias.label}: {detail}.", hint=hint, id="lakebase.W009")


FINDINGS = (
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
)


def _is_in_environment(secret: str) -> bool:
    """Return whether a variable is *secret*, or a URL or other text that holds it."""
    for value in os.environ.values():
        parts = split_url(value) if "://" in value else None
        password = (parts and parts.password) or ""
        if secret in (clean(value), unquote(password)):
            return True
        if len(secret) >= LEAST_SECRET and secret in unquote(value):
            return True
    return False


def _bare(url: str) -> str:
    """Return *url* as two people may write it differently."""
    return url.lower().rpartition("://")[2].rstrip("/")
