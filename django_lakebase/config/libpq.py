"""
The environment variables and files that libpq reads, and how the engine treats them.

How it works. libpq fills each parameter that its caller omits: from a service file,
from an environment variable, from a file in HOME. Any of these may belong to another
database, and PGHOSTADDR alone would send a token to another machine. The engine
therefore passes every such parameter explicitly. Variables that cannot be overridden
that way are rejected, or named in a warning.
https://www.postgresql.org/docs/current/libpq-envars.html lists the variables.
"""

import functools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import psycopg.pq
from psycopg.conninfo import make_conninfo

from .parsing import clean
from .target import Target

# A path that exists on no machine, which stat() reports even if HOME is unreadable.
# libpq treats an empty path as "not given" and looks in HOME.
NO_FILE = f"{os.devnull}/unused"
# The operating systems' certificate authorities: Debian and Alpine, Red Hat, SUSE,
# macOS and the BSDs.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class Effect(StrEnum):
    """How the engine treats a libpq variable."""

    READ = "read"
    KEPT = "left to libpq"
    IGNORED = "ignored"
    REJECTED = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """
    An environment variable of libpq.

    *keyword* is the parameter that it fills. *value* is what the engine passes instead
    (None: Django passes it, or it is not needed). *note* is for the documentation.
    """

    name: str
    effect: Effect
    note: str
    keyword: str = ""
    value: str | None = None


def _read(name: str, note: str, keyword: str = "") -> Variable:
    return Variable(name=name, effect=Effect.READ, note=note, keyword=keyword)


def _kept(name: str, note: str) -> Variable:
    return Variable(name=name, effect=Effect.KEPT, note=note)


def _ignored(name: str, keyword: str, value: str | None, note: str) -> Variable:
    return Variable(
        name=name, effect=Effect.IGNORED, keyword=keyword, value=value, note=note
    )


def _rejected(name: str, note: str) -> Variable:
    return Variable(name=name, effect=Effect.REJECTED, note=note)


_GROUP = "Applies to every alias that does not set its own value."
_HOST_GROUP = "Read if the settings name no other database."
_CERTIFICATE = "A login with a token or password needs no client certificate."

VARIABLES = (
    _read("PGHOST", _HOST_GROUP),
    _read("PGPORT", _GROUP),
    _read("PGDATABASE", _GROUP),
    _read("PGUSER", "Read for logins with a token whose settings name no workspace."),
    _read("PGSSLMODE", f"{_GROUP} Modes weaker than `require` are rejected."),
    _read("PGSSLROOTCERT", f"{_GROUP} `system` means the public authorities."),
    _read("PGCONNECT_TIMEOUT", "Limits each attempt, within `connect_budget`."),
    _read("PGOPTIONS", f"{_HOST_GROUP} Otherwise it is ignored.", "options"),
    _kept("PGAPPNAME", "The name of the session on the server."),
    _kept("PGSSLMINPROTOCOLVERSION", "Limits the TLS version."),
    _kept("PGSSLMAXPROTOCOLVERSION", "Limits the TLS version."),
    _kept("PGMINPROTOCOLVERSION", "Limits the protocol version (libpq 18)."),
    _kept("PGMAXPROTOCOLVERSION", "Limits the protocol version (libpq 18)."),
    _kept("PGTZ", "Has no effect: Django sets the time zone of each connection."),
    _kept("PGGEQO", "A setting of the query planner."),
    _kept("PGREQUIREPEER", "Applies to local sockets, which the engine rejects."),
    _kept("PGSSLCOMPRESSION", "Has no effect: libpq no longer compresses."),
    _kept("PGKRBSRVNAME", "Applies to GSSAPI, which is disabled."),
    _kept("PGGSSLIB", "Applies to GSSAPI, which is disabled."),
    _kept("PGGSSDELEGATION", "Applies to GSSAPI, which is disabled."),
    _kept("PGSERVICEFILE", 'Read only with `OPTIONS["service"]`.'),
    _kept("PGSYSCONFDIR", 'Read only with `OPTIONS["service"]`.'),
    _kept("PGLOCALEDIR", "The language of libpq's messages."),
    _kept(
        "PGDATESTYLE",
        "`manage.py check` warns if psycopg could not read timestamps in this style.",
    ),
    _ignored("PGHOSTADDR", "hostaddr", "", "`LAKEBASE_HOSTADDR` is read instead."),
    _ignored(
        "PGPASSWORD",
        "password",
        None,
        "The password is a token, or PASSWORD in the settings.",
    ),
    _ignored(
        "PGPASSFILE", "passfile", None, "Like PGPASSWORD; `~/.pgpass` is ignored too."
    ),
    _ignored("PGCLIENTENCODING", "client_encoding", None, "Django always uses UTF8."),
    _ignored("PGGSSENCMODE", "gssencmode", "disable", "The service uses TLS."),
    _ignored(
        "PGSSLNEGOTIATION",
        "sslnegotiation",
        "postgres",
        "The service expects the PostgreSQL negotiation.",
    ),
    _ignored("PGSSLSNI", "sslsni", "1", "The service routes by the host name in TLS."),
    _ignored("PGSSLCERTMODE", "sslcertmode", "disable", _CERTIFICATE),
    _ignored(
        "PGSSLCERT", "sslcert", None, f"{_CERTIFICATE} `~/.postgresql` is ignored too."
    ),
    _ignored("PGSSLKEY", "sslkey", None, _CERTIFICATE),
    _ignored("PGSSLCRL", "sslcrl", NO_FILE, 'Use `OPTIONS["sslcrl"]`.'),
    _ignored("PGSSLCRLDIR", "sslcrldir", "", 'Use `OPTIONS["sslcrldir"]`.'),
    _ignored(
        "PGTARGETSESSIONATTRS",
        "target_session_attrs",
        "any",
        "The endpoint determines whether it accepts writes.",
    ),
    _ignored(
        "PGLOADBALANCEHOSTS", "load_balance_hosts", "disable", "There is one host."
    ),
    _rejected(
        "PGSERVICE",
        'It could name another host. Use `OPTIONS["service"]` to name a service.',
    ),
    _rejected(
        "PGREQUIREAUTH",
        "Rejected for a login with a token unless it allows `password`, the method for "
        "tokens.",
    ),
    _rejected(
        "PGCHANNELBINDING",
        "Rejected for a login with a token if it is `require`, which tokens cannot do.",
    ),
)


@functools.cache
def keywords() -> frozenset[str]:
    """Return the connection parameters that the loaded libpq knows."""
    return frozenset(_displays())


@functools.cache
def _displays() -> dict[str, bytes]:
    """Return each parameter's display flag: empty unless secret or internal."""
    defaults = psycopg.pq.Conninfo.get_defaults()
    return {option.keyword.decode(): option.dispchar for option in defaults}


def connection_params(
    target: Target, options: Mapping[str, Any], startup_options: str
) -> dict[str, Any]:
    """
    Return the parameters for where and how to connect, without the login.

    *options* are the project's OPTIONS, *startup_options* the server settings of the
    startup packet.
    """
    is_service = bool(options.get("service"))
    params: dict[str, Any] = {
        "host": target.host,
        "port": target.port,
        "user": target.user,
        "sslmode": target.sslmode,
        "connect_timeout": target.connect_timeout,
        "options": startup_options,
        "hostaddr": target.hostaddr,
        "sslrootcert": target.sslrootcert if is_service else certificates(target),
    }
    # An empty value keeps libpq from reading the environment; a service may set it.
    may_be_empty = () if is_service else ("options", "hostaddr")
    given = {k: v for k, v in params.items() if v or k in may_be_empty}
    return {**overrides(options), **given}


def overrides(options: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the parameters that keep libpq from reading variables and files in HOME.

    The project's *options* take precedence. The project also chooses a service file,
    so nothing is overridden if one is named.
    """
    if options.get("service"):
        return {}
    params = dict(_overrides())
    if options.get("sslcert"):
        params["sslcertmode"] = "allow"
    if options.get("sslcrldir"):
        params["sslcrl"] = ""
    if options.get("passfile"):
        # libpq prefers PGPASSWORD to a password file; an empty password to neither.
        params["password"] = ""
    return {k: v for k, v in params.items() if k in keywords() and not options.get(k)}


@functools.cache
def _overrides() -> dict[str, str]:
    params = {v.keyword: v.value for v in VARIABLES if v.value is not None}
    if "sslcertmode" not in keywords():  # libpq 15 and older.
        params["sslcert"] = NO_FILE
    return params


# Parameters that psql before version 16 or 17 rejects; it ignores them as variables.
_NEWER_THAN_PSQL = ("sslcertmode", "sslnegotiation", "load_balance_hosts")
# Parameters that Django's dbshell passes to psql as arguments and variables.
_NOT_IN_CONNINFO = ("host", "port", "user", "password", "passfile", "service")


def psql_conninfo(target: Target, options: Mapping[str, Any]) -> str:
    """
    Return the connection string that psql gets as its database, without secrets.

    Its values override variables and service files; psql accepts only some of them as
    arguments.
    """
    # Only options that are not secret to libpq: arguments of psql are visible.
    own = {k: v for k, v in options.items() if _displays().get(k) == b""}
    params = {**own, **connection_params(target, options, target.libpq_options)}
    if not options.get("service"):
        params.setdefault("sslcert", NO_FILE)
    excluded = (*_NOT_IN_CONNINFO, *(k for k in _NEWER_THAN_PSQL if k not in options))
    named = {"dbname": target.database or "postgres"} if target.database != "" else {}
    kept = {k: v for k, v in params.items() if k not in excluded}
    return make_conninfo(**named, **kept)


def psql_environment(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that override what `psql_conninfo` leaves out."""
    passed = overrides(options)
    return {
        variable.name: passed[variable.keyword]
        for variable in VARIABLES
        if variable.keyword in _NEWER_THAN_PSQL and variable.keyword in passed
    }


def certificates(target: Target) -> str:
    """Return the file of certificate authorities, or a path that does not exist."""
    return _file(target.sslrootcert, os.environ.get("SSL_CERT_FILE", ""))


@functools.cache
def _file(sslrootcert: str, variable: str) -> str:
    if sslrootcert == "system":
        return _system_bundle(variable)
    return str(Path(sslrootcert or NO_FILE).expanduser())


def _system_bundle(variable: str) -> str:
    """
    Return the file of the public certificate authorities.

    libpq's ``system`` is the directory that its OpenSSL was compiled with, which for
    psycopg's binary packages exists on no machine.
    """
    for path in (variable, *BUNDLES):
        if path and Path(path).is_file():
            return path
    # A dependency of the SDK; few machines reach this line.
    import certifi

    return certifi.where()


def ignored(
    params: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[Variable]:
    """
    Yield the variables that are set but have no effect on a connection.

    *params* are the parameters that libpq gets. Variables with the same value are left
    out.
    """
    for variable in VARIABLES:
        value = clean(environ.get(variable.name, ""))
        own = params.get(variable.keyword, "")
        if not value or not variable.keyword:
            continue
        if variable.effect is Effect.READ and value in str(own):
            continue
        # Never str(own) of a password: that would call the workspace.
        if variable.keyword == "password" or str(own) != value:
            yield variable


def warning(params: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return a warning about variables that are set but ignored, and a hint."""
    found = list(ignored(params, environ))
    if not found:
        return "", ""
    names = ", ".join(variable.name for variable in found)
    notes = " ".join(f"{v.name}: {v.note}" for v in found).replace("`", "")
    return (
        f"{names} set in the environment, but ignored for this alias",
        f"Unset variables that no other program needs. {notes}",
    )


def date_style_warning(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return a warning about a PGDATESTYLE that psycopg cannot read, and a hint."""
    style = environ.get("PGDATESTYLE", "")
    is_iso = style.strip().upper().startswith("ISO")
    if not style or is_iso or style.lower() == "default":
        return "", ""
    detail = f'PGDATESTYLE is "{style}", but psycopg reads timestamps only in ISO style'
    return detail, "Unset PGDATESTYLE for this process, or set it to ISO."
