"""
What libpq reads besides the parameters it is given, and what the engine makes of it.

How it works. libpq fills each parameter that its caller leaves out: from a service
file, from a variable, from a file below HOME. Any of them may belong to another
database, and PGHOSTADDR alone sends a token to another machine. The engine therefore
passes every such parameter explicitly, so that libpq has nothing left to fill. What
cannot be overridden that way is refused by name, or named in a warning.
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

from .config import Target
from .parsing import clean

# A path that exists on no machine, which stat() reports as such even where HOME cannot
# be read: libpq takes an empty path for "not given" and looks below HOME.
NO_FILE = f"{os.devnull}/unused"
# Where operating systems keep their certificate authorities: Debian and Alpine, Red
# Hat, SUSE, macOS and the BSDs.
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class Effect(StrEnum):
    """What the engine does about a variable of libpq."""

    READ = "read"
    KEPT = "left to libpq"
    IGNORED = "ignored"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """
    A variable of libpq.

    *keyword* is the parameter that it fills, *value* the one that the engine passes
    instead (None: Django passes it, or it has no use here), *note* a sentence for
    the documentation.
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


def _refused(name: str, note: str) -> Variable:
    return Variable(name=name, effect=Effect.REFUSED, note=note)


_GROUP = "Serves every alias that does not set its own."
_HOST_GROUP = "Read where the settings name no other database."
_CERTIFICATE = "A login by token or password needs no client certificate."

VARIABLES = (
    _read("PGHOST", _HOST_GROUP),
    _read("PGPORT", _GROUP),
    _read("PGDATABASE", _GROUP),
    _read("PGUSER", "Read for logins by token whose settings name no workspace."),
    _read("PGSSLMODE", f"{_GROUP} Weaker than `require` is refused."),
    _read("PGSSLROOTCERT", f"{_GROUP} `system` means the public authorities."),
    _read("PGCONNECT_TIMEOUT", "Bounds each attempt, inside `connect_budget`."),
    _read("PGOPTIONS", f"{_HOST_GROUP} Otherwise it is ignored.", "options"),
    _kept("PGAPPNAME", "Names the session on the server."),
    _kept("PGSSLMINPROTOCOLVERSION", "Bounds the TLS version."),
    _kept("PGSSLMAXPROTOCOLVERSION", "Bounds the TLS version."),
    _kept("PGMINPROTOCOLVERSION", "Bounds the protocol version (libpq 18)."),
    _kept("PGMAXPROTOCOLVERSION", "Bounds the protocol version (libpq 18)."),
    _kept("PGTZ", "Django sets the time zone of each connection all the same."),
    _kept("PGGEQO", "A setting of the server's planner."),
    _kept("PGREQUIREPEER", "Concerns local sockets, which the engine refuses."),
    _kept("PGSSLCOMPRESSION", "libpq no longer compresses."),
    _kept("PGKRBSRVNAME", "Concerns GSSAPI, which is off."),
    _kept("PGGSSLIB", "Concerns GSSAPI, which is off."),
    _kept("PGGSSDELEGATION", "Concerns GSSAPI, which is off."),
    _kept("PGSERVICEFILE", 'Read with `OPTIONS["service"]` only.'),
    _kept("PGSYSCONFDIR", 'Read with `OPTIONS["service"]` only.'),
    _kept("PGLOCALEDIR", "The language of libpq's messages."),
    _kept(
        "PGDATESTYLE",
        "`manage.py check` warns: with some values psycopg cannot read timestamps.",
    ),
    _ignored("PGHOSTADDR", "hostaddr", "", "`LAKEBASE_HOSTADDR` is read in its place."),
    _ignored(
        "PGPASSWORD",
        "password",
        None,
        "The password is a token, or the PASSWORD of the settings.",
    ),
    _ignored("PGPASSFILE", "passfile", None, "As PGPASSWORD; so is `~/.pgpass`."),
    _ignored(
        "PGCLIENTENCODING", "client_encoding", None, "Django always asks for UTF8."
    ),
    _ignored("PGGSSENCMODE", "gssencmode", "disable", "The service speaks TLS."),
    _ignored("PGSSLNEGOTIATION", "sslnegotiation", "postgres", "As the service does."),
    _ignored("PGSSLSNI", "sslsni", "1", "The service routes by the host name in TLS."),
    _ignored("PGSSLCERTMODE", "sslcertmode", "disable", _CERTIFICATE),
    _ignored("PGSSLCERT", "sslcert", None, f"{_CERTIFICATE} As for `~/.postgresql`."),
    _ignored("PGSSLKEY", "sslkey", None, _CERTIFICATE),
    _ignored("PGSSLCRL", "sslcrl", NO_FILE, 'Use `OPTIONS["sslcrl"]`.'),
    _ignored("PGSSLCRLDIR", "sslcrldir", "", 'Use `OPTIONS["sslcrldir"]`.'),
    _ignored(
        "PGTARGETSESSIONATTRS",
        "target_session_attrs",
        "any",
        "The endpoint decides whether it can be written to.",
    ),
    _ignored(
        "PGLOADBALANCEHOSTS", "load_balance_hosts", "disable", "There is one host."
    ),
    _refused(
        "PGSERVICE",
        'It could name another host. `OPTIONS["service"]` names a service on purpose.',
    ),
    _refused(
        "PGREQUIREAUTH",
        "Refused for a login by token unless it allows `password`, which is how "
        "tokens are sent.",
    ),
    _refused(
        "PGCHANNELBINDING",
        "Refused for a login by token if it is `require`, which tokens cannot do.",
    ),
)


@functools.cache
def keywords() -> frozenset[str]:
    """Return the connection parameters that the libpq in use knows."""
    return frozenset(_displays())


@functools.cache
def _displays() -> dict[str, bytes]:
    """Return for each parameter how libpq displays it: secrets and oddities apart."""
    defaults = psycopg.pq.Conninfo.get_defaults()
    return {option.keyword.decode(): option.dispchar for option in defaults}


def connection_params(
    target: Target, options: Mapping[str, Any], startup_options: str
) -> dict[str, Any]:
    """
    Return all that says where a connection goes, and how, but not who logs in.

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
    # An empty one keeps libpq from asking the environment; a service may name it.
    meant_empty = () if is_service else ("options", "hostaddr")
    given = {k: v for k, v in params.items() if v or k in meant_empty}
    return {**overrides(options), **given}


def overrides(options: Mapping[str, Any]) -> dict[str, str]:
    """
    Return the parameters that keep libpq from looking for them elsewhere.

    *options* are the project's own, which win. A service file is the project's own
    too, so nothing is overridden where one is named.
    """
    if options.get("service"):
        return {}
    params = dict(_overrides(keywords()))
    if options.get("sslcert"):
        params["sslcertmode"] = "allow"
    if options.get("sslcrldir"):
        params["sslcrl"] = ""
    if options.get("passfile"):
        # libpq prefers PGPASSWORD to a password file, and an empty one to neither.
        params["password"] = ""
    return {k: v for k, v in params.items() if k in keywords() and not options.get(k)}


@functools.cache
def _overrides(known: frozenset[str]) -> dict[str, str]:
    params = {v.keyword: v.value for v in VARIABLES if v.value is not None}
    if "sslcertmode" not in known:  # libpq 15 and older.
        params["sslcert"] = NO_FILE
    return params


# What a psql before version 16 or 17 refuses as a parameter and ignores as a variable.
_NEWER_THAN_PSQL = ("sslcertmode", "sslnegotiation", "load_balance_hosts")
# What Django's dbshell gives psql by arguments and variables of its own.
_NOT_IN_CONNINFO = ("host", "port", "user", "password", "passfile", "service")


def psql_conninfo(target: Target, options: Mapping[str, Any]) -> str:
    """
    Return what psql gets as its database: a connection string without secrets.

    Its values win over variables and service files, and psql takes only some of them
    as arguments.
    """
    # Those that libpq displays openly: psql's arguments are not secret.
    own = {k: v for k, v in options.items() if _displays().get(k) == b""}
    params = {**own, **connection_params(target, options, target.libpq_options)}
    if not options.get("service"):
        params.setdefault("sslcert", NO_FILE)
    left_out = (*_NOT_IN_CONNINFO, *(k for k in _NEWER_THAN_PSQL if k not in options))
    named = {"dbname": target.database or "postgres"} if target.database != "" else {}
    kept = {k: v for k, v in params.items() if k not in left_out}
    return make_conninfo(**named, **kept)


def psql_environment(options: Mapping[str, Any]) -> dict[str, str]:
    """Return the variables that override what is not in `psql_conninfo`."""
    passed = overrides(options)
    return {
        variable.name: passed[variable.keyword]
        for variable in VARIABLES
        if variable.keyword in _NEWER_THAN_PSQL and variable.keyword in passed
    }


def certificates(target: Target) -> str:
    """Return the file of certificate authorities, or one that does not exist."""
    return _file(target.sslrootcert, os.environ.get("SSL_CERT_FILE", ""))


@functools.cache
def _file(sslrootcert: str, variable: str) -> str:
    if sslrootcert == "system":
        return system_bundle(variable)
    return str(Path(sslrootcert or NO_FILE).expanduser())


def system_bundle(variable: str) -> str:
    """
    Return the file of the public certificate authorities.

    libpq's own ``system`` is the directory that its OpenSSL was built for, which for
    psycopg's binary packages exists on no machine.
    """
    for path in (variable, *BUNDLES):
        if path and Path(path).is_file():
            return path
    # A dependency of the SDK's; few machines get here.
    import certifi

    return certifi.where()


def ignored(
    params: Mapping[str, Any], environ: Mapping[str, str]
) -> Iterator[Variable]:
    """
    Yield the variables that are set and have no effect on a connection.

    *params* are the parameters that libpq is given. A variable that says the same as
    they do is left out.
    """
    for variable in VARIABLES:
        value = clean(environ.get(variable.name, ""))
        own = params.get(variable.keyword, "")
        if not value or not variable.keyword:
            continue
        if variable.effect is Effect.READ and value in str(own):
            continue
        # Not str(own) of a password: that asks the workspace.
        if variable.keyword == "password" or str(own) != value:
            yield variable


def warning(params: Mapping[str, Any], environ: Mapping[str, str]) -> tuple[str, str]:
    """Return what to say of the variables that are set and ignored, and a hint."""
    found = list(ignored(params, environ))
    if not found:
        return "", ""
    names = ", ".join(variable.name for variable in found)
    notes = " ".join(f"{v.name}: {v.note}" for v in found).replace("`", "")
    return (
        f"{names} set in the environment, and ignored for this alias",
        f"Unset what is not meant for other programs. {notes}",
    )


def date_style_warning(environ: Mapping[str, str]) -> tuple[str, str]:
    """Return what to say of a PGDATESTYLE that psycopg cannot read, and a hint."""
    style = environ.get("PGDATESTYLE", "")
    is_iso = style.strip().upper().startswith("ISO")
    if not style or is_iso or style.lower() == "default":
        return "", ""
    detail = f'PGDATESTYLE is "{style}", and psycopg reads timestamps in ISO style only'
    return detail, "Unset PGDATESTYLE for this process, or set it to ISO."
