"""The deployment step ``limits``: connections in use, and the age of the secret."""

from datetime import datetime
from typing import NamedTuple

from psycopg.sql import SQL, Identifier

from django_lakebase.auth.credentials import utc_now
from django_lakebase.auth.registry import access_to
from django_lakebase.auth.singleflight import CALL_TIMEOUT, CallError
from django_lakebase.config.sources import read_variable
from django_lakebase.config.target import Login, Target

from .session import Session
from .step import Finding, Outcome, Status

# The share of a limit, and the days before a secret expires, from which on to warn.
SHARE = 0.8
DAYS = 30
# The most characters of an error of the workspace.
ERROR_LENGTH = 200

# One row, with the fields of Connections. To a role without pg_read_all_stats, the
# backend_type of other roles' sessions is null. Those with a database and a user count:
# besides clients, these are only a few of the server's workers. Version 15 has no
# reserved_connections.
QUERY = """
SELECT r.rolname, d.datname, pg_get_userbyid(d.datdba), count(a.pid),
    current_setting('max_connections')::int
        - current_setting('superuser_reserved_connections')::int
        - coalesce(current_setting('reserved_connections', true), '0')::int,
    count(a.pid) FILTER (WHERE a.usesysid = r.oid), r.rolconnlimit,
    count(a.pid) FILTER (WHERE a.datid = d.oid), d.datconnlimit
FROM pg_database d JOIN pg_roles r ON r.rolname = session_user
LEFT JOIN pg_stat_activity a ON a.datid IS NOT NULL AND a.usesysid IS NOT NULL
    AND coalesce(a.backend_type, 'client backend') = 'client backend'
WHERE d.datname = current_database()
GROUP BY r.rolname, d.datname, d.datdba, r.rolconnlimit, d.datconnlimit
"""


class Connections(NamedTuple):
    """
    The open connections of the server, the role and the database, and their limits.

    *role_limit* and *database_limit* are -1 if there is no limit. *owner* is the owner
    of the database.
    """

    role: str
    database: str
    owner: str
    in_use: int
    limit: int
    in_use_by_role: int
    role_limit: int
    in_use_in_database: int
    database_limit: int


def check_limits(session: Session) -> Outcome:
    """Compare the open connections with the limits; report when the secret expires."""
    [row] = session.fetch(QUERY)
    connections = Connections(*row)
    secret, warnings = _check_secret(session.wrapper.get_target())
    summary = f"{connections.in_use} of {connections.limit} connections are in use"
    return Outcome(
        "; ".join(filter(None, (summary, secret))),
        (*_check_connections(connections), *warnings),
    )


def _check_connections(found: Connections) -> list[Finding]:
    role, database = Identifier(found.role), Identifier(found.database)
    limits = [
        ("server", found.in_use, found.limit, None),
        (
            f'role "{found.role}"',
            found.in_use_by_role,
            found.role_limit,
            SQL("ALTER ROLE {} CONNECTION LIMIT -1;").format(role),
        ),
        (
            f'database "{found.database}"',
            found.in_use_in_database,
            found.database_limit,
            SQL("ALTER DATABASE {} CONNECTION LIMIT -1;").format(database),
        ),
    ]
    hint = (
        'Open fewer connections: reduce the number of processes, the "max_size" of '
        'OPTIONS["pool"], or CONN_MAX_AGE. '
    )
    larger = "Or give the endpoint a larger compute, which has a higher limit."
    return [
        Finding(
            id="connections-nearly-exhausted",
            status=Status.WARN,
            detail=f"{in_use} of the {limit} connections of the {name} are in use",
            hint=hint + ("Or remove the limit." if statement else larger),
            role=found.owner if statement else "",
            statements=(statement.as_string(None),) if statement else (),
        )
        for name, in_use, limit, statement in limits
        if limit >= 0 and in_use >= SHARE * limit
    ]


def _check_secret(target: Target) -> tuple[str, list[Finding]]:
    """Return when the client secret expires, as text, and a warning if that is soon."""
    login = target.login
    if login is None:
        return "", []
    try:
        times = access_to(target).workspace.secrets_expire_at(timeout=CALL_TIMEOUT)
    except CallError as exc:
        reason = str(exc)[:ERROR_LENGTH]
        return f"the expiry of the client secret is not known ({reason})", []
    return describe_secrets(times, utc_now(), _secret_setting(login))


def describe_secrets(
    times: tuple[datetime, ...] | None, now: datetime, setting: str
) -> tuple[str, list[Finding]]:
    """
    Return when the client secret expires, as text, and a warning if that is soon.

    *times* are those of `Workspace.secrets_expire_at`; *setting* contains the secret.
    """
    if times is None:
        return "", []
    if not times:
        return "the client secret does not expire", []
    days = round((times[0] - now).total_seconds() / 86400)
    secret, several = "the client secret", ""
    if len(times) > 1:
        secret = f"the first of {len(times)} client secrets"
        several = "The workspace does not tell which of them this login uses. "
    detail = f"{secret} expires on {times[0]:%Y-%m-%d} (days left: {days})"
    if days >= DAYS:
        return detail, []
    hint = (
        f"{several}Before that day, create a new secret for the service principal, and "
        f"set {setting} to it."
    )
    finding = Finding(
        id="client-secret-expires", status=Status.WARN, detail=detail, hint=hint
    )
    return detail, [finding]


def _secret_setting(login: Login) -> str:
    """Return the name of what contains the client secret of *login*."""
    if "client_secret" in (login.arguments or {}):
        return 'OPTIONS["workspace"]["client_secret"]'
    if login.arguments is None and read_variable("DATABRICKS_CLIENT_SECRET"):
        return "DATABRICKS_CLIENT_SECRET"
    return "the client_secret of the login"
