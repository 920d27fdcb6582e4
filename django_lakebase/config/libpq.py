"""
The environment variables and files that libpq reads, and how the engine treats them.

How it works. libpq fills each parameter that its caller omits: from a service file,
from an environment variable, or from a file in HOME. Any of these may belong to another
database, and PGHOSTADDR alone would send a token to another machine. The engine
therefore passes every such parameter explicitly. Variables that cannot be overridden
that way are rejected or named in a warning.

Invariants. `VARIABLES` has a row for every variable of libpq, which
https://www.postgresql.org/docs/current/libpq-envars.html lists. The engine adds no
parameter that the loaded libpq does not know. The functions have no side effects and
need no lock; cached results depend only on libpq and on files of certificates.
"""

import functools
import os
from collections.abc import Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import psycopg.pq
from psycopg.conninfo import make_conninfo

from .pasted_values import clean
from .target import PUBLIC_AUTHORITIES, Target

# A path that cannot exist, because its parent is not a directory; libpq treats the file
# as missing, even if HOME is unreadable. An empty path would mean "not given" to libpq,
# which would then look in HOME.
NO_FILE = f"{os.devnull}/unused"
# The shortest connect_timeout that libpq applies, in seconds.
MIN_CONNECT_TIMEOUT = 2
# The files of certificate authorities of operating systems: Debian and Alpine, Red Hat,
# SUSE, macOS and the BSDs.
CA_BUNDLES = (
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


class Variable(NamedTuple):
    """
    An environment variable of libpq: a row of the table.

    *note* is a sentence for the documentation and for warnings, in Markdown. *keyword*
    is the parameter that the variable fills. *value* is what the engine passes instead
    (None: Django passes the parameter, or nothing is needed).
    """

    effect: Effect
    name: str
    note: str
    keyword: str = ""
    value: str | None = None


_read = partial(Variable, Effect.READ)
_kept = partial(Variable, Effect.KEPT)
_ignored = partial(Variable, Effect.IGNORED)
_rejected = partial(Variable, Effect.REJECTED)

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
    _ignored("PGHOSTADDR", "`LAKEBASE_HOSTADDR` is read instead.", "hostaddr", ""),
    _ignored(
        "PGPASSWORD",
        "The password is a token, or PASSWORD in the settings.",
        "password",
    ),
    _ignored("PGPASSFILE", "Like PGPASSWORD; `~/.pgpass` is ignored too.", "passfile"),
    _ignored("PGCLIENTENCODING", "Django always uses UTF8.", "client_encoding"),
    _ignored("PGGSSENCMODE", "The service uses TLS.", "gssencmode", "disable"),
    _ignored(
        "PGSSLNEGOTIATION",
        'Use `OPTIONS["sslnegotiation"]`.',
        "sslnegotiation",
        "postgres",
    ),
    _ignored("PGSSLSNI", "The service routes by the host name in TLS.", "sslsni", "1"),
    _ignored("PGSSLCERTMODE", _CERTIFICATE, "sslcertmode", "disable"),
    _ignored("PGSSLCERT", f"{_CERTIFICATE} `~/.postgresql` is ignored too.", "sslcert"),
    _ignored("PGSSLKEY", _CERTIFICATE, "sslkey"),
    _ignored("PGSSLCRL", 'Use `OPTIONS["sslcrl"]`.', "sslcrl", NO_FILE),
    _ignored("PGSSLCRLDIR", 'Use `OPTIONS["sslcrldir"]`.', "sslcrldir", ""),
    _ignored(
        "PGTARGETSESSIONATTRS",
        "The endpoint determines whether it accepts writes.",
        "target_session_attrs",
        "any",
    ),
    _ignored(
        "PGLOADBALANCEHOSTS", "There is one host.", "load_balance_hosts", "disable"
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
    return frozenset(_display_flags())


def has_direct_tls() -> bool:
    """Return whether the loaded libpq can start TLS without asking (libpq 17)."""
    return "sslnegotiation" in keywords()


@functools.cache
def _display_flags() -> dict[str, bytes]:
    """Return the display flag of each parameter: empty unless secret or internal."""
    defaults = psycopg.pq.Conninfo.get_defaults()
    return {option.keyword.decode(): option.dispchar for option in defaults}


def connection_params(
    target: Target, options: Mapping[str, Any], startup_options: str
) -> dict[str, Any]:
    """
    Return the parameters that say where and how to connect, without the password.

    *options* are the project's OPTIONS, *startup_options* the server settings in the
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
        "sslrootcert": target.sslrootcert if is_service else certificate_file(target),
    }
    # An empty value keeps libpq from reading the variable. It would also override a
    # service file.
    may_be_empty = () if is_service else ("options", "hostaddr")
    given = {
        keyword: value
        for keyword, value in params.items()
        if value or keyword in may_be_empty
    }
    params = {**overrides(options), **given}
    if has_direct_tls() and (target.sslnegotiation != "auto" or not is_service):
        # With "auto", the connector replaces it as soon as it knows the server.
        is_direct = target.sslnegotiation == "direct"
        params["sslnegotiation"] = "direct" if is_direct else "postgres"
    return params


def overrides(options: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the parameters that keep libpq from reading variables and files in HOME.

    The project's *options* take precedence. If they name a service, nothing is
    overridden, because the project has chosen the service file too.
    """
    if options.get("service"):
        return {}
    params = dict(_overrides(keywords()))
    if options.get("sslcert"):
        params["sslcertmode"] = "allow"
    if options.get("sslcrldir"):
        params["sslcrl"] = ""
    if options.get("passfile"):
        # libpq would prefer PGPASSWORD to the password file. An empty password
        # overrides only the variable.
        params["password"] = ""
    return {
        keyword: value
        for keyword, value in params.items()
        if keyword in keywords() and not options.get(keyword)
    }


@functools.cache
def _overrides(known: frozenset[str]) -> dict[str, str]:
    params = {v.keyword: v.value for v in VARIABLES if v.value is not None}
    if "sslcertmode" not in known:  # libpq 15 and older.
        params["sslcert"] = NO_FILE
    return params


# Parameters that psql rejects before version 16 or 17. As variables it ignores them.
_NEWER_THAN_PSQL = ("sslcertmode", "sslnegotiation", "load_balance_hosts")
# Parameters that Django's dbshell passes to psql as arguments or variables.
_NOT_IN_CONNINFO = ("host", "port", "user", "password", "passfile", "service")


def psql_conninfo(target: Target, options: Mapping[str, Any]) -> str:
    """
    Return the connection string to pass to psql as its database, without secrets.

    The values in it override variables and service files; psql has arguments for only
    some of them.
    """
    # Only options that libpq does not mark as secret: other users of the machine can
    # see the arguments of psql.
    visible = {
        key: value for key, value in options.items() if _display_flags().get(key) == b""
    }
    params = {**visible, **connection_params(target, options, target.libpq_options)}
    if not options.get("service"):
        params.setdefault("sslcert", NO_FILE)
    newer = (k for k in _NEWER_THAN_PSQL if k not in options or k == "sslnegotiation")
    excluded = (*_NOT_IN_CONNINFO, *newer)
    named = {"dbname": target.database or "postgres"} if target.database != "" else {}
    kept = {k: v for k, v in params.items() if k not in excluded}
    return make_conninfo(**named, **kept)


def psql_environment(target: Target, options: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables for the parameters that `psql_conninfo` leaves out."""
    passed = connection_params(target, options, target.libpq_options)
    return {
        variable.name: passed[variable.keyword]
        for variable in VARIABLES
        if variable.keyword in _NEWER_THAN_PSQL and variable.keyword in passed
    }


def certificate_file(target: Target) -> str:
    """Return the file of certificate authorities, or `NO_FILE` if there is none."""
    return _certificate_file(target.sslrootcert, os.environ.get("SSL_CERT_FILE", ""))


@functools.cache
def _certificate_file(sslrootcert: str, ssl_cert_file: str) -> str:
    if sslrootcert == PUBLIC_AUTHORITIES:
        return system_bundle(ssl_cert_file)
    return str(Path(sslrootcert or NO_FILE).expanduser())


def system_bundle(ssl_cert_file: str) -> str:
    """
    Return the file of the public certificate authorities.

    *ssl_cert_file* comes first, as in OpenSSL. libpq's own ``system`` is the directory
    that its OpenSSL was compiled with; for psycopg's binary packages that directory
    exists on no machine.
    """
    for path in (ssl_cert_file, *CA_BUNDLES):
        if path and Path(path).is_file():
            return path
    # A dependency of the SDK. Imported here because few machines need it.
    import certifi

    return certifi.where()


def ignored_variables_warning(
    params: Mapping[str, Any], environ: Mapping[str, str]
) -> tuple[str, str]:
    """
    Return a warning about ignored variables and a hint, or two empty strings.

    *params* are the parameters that libpq gets. Variables with the same value as their
    parameter are left out.
    """
    found = []
    for variable in VARIABLES:
        value = clean(environ.get(variable.name, ""))
        passed = params.get(variable.keyword, "")
        if not value or not variable.keyword:
            continue
        if variable.effect is Effect.READ and value in str(passed):
            continue
        # str() of the password would call the workspace.
        if variable.keyword == "password" or str(passed) != value:
            found.append(variable)
    if not found:
        return "", ""
    names = ", ".join(variable.name for variable in found)
    notes = " ".join(f"{v.name}: {v.note}" for v in found).replace("`", "")
    return (
        f"the environment sets {names}, which this alias ignores",
        f"Unset variables that no other program needs. {notes}",
    )


def date_style_warning(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return a warning about PGDATESTYLE and a hint, or two empty strings."""
    style = environ.get("PGDATESTYLE", "")
    is_iso = style.strip().upper().startswith("ISO")
    if not style or is_iso or style.lower() == "default":
        return "", ""
    detail = f'PGDATESTYLE is "{style}", but psycopg reads timestamps only in ISO style'
    return detail, "Unset PGDATESTYLE for this process, or set it to ISO."
