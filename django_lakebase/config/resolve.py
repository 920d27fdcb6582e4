"""
Resolution of settings and environment into one Target: where and how an alias connects.

It uses no network and changes nothing: filled settings (see fill.py) and unfilled ones
give the same Target. docs/reference/settings.md has the rules for users.
"""

import ipaddress
import re
from collections.abc import Hashable, Mapping
from typing import Any

import psycopg.pq

from .libpq import has_direct_tls
from .login import is_password_token, password_key, resolve_login
from .pasted_values import parse_boolean, parse_number
from .server_settings import TIME_LIMITS, resolve_schema, resolve_server_settings
from .sources import PARSERS, Sources, Value, converted
from .target import (
    DEFAULT_BUDGET,
    DEFAULT_PORT,
    PUBLIC_AUTHORITIES,
    Target,
    endpoint_option,
    is_pooled_host,
)

LAST_PORT = 65535
# The keys of OPTIONS that this engine handles, and Django and libpq do not know.
OWN_OPTIONS = (
    "workspace",
    "endpoint",
    "connect_budget",
    "reconnect",
    "refresh_before_fork",
    "sslnegotiation",
    "schema",
    *TIME_LIMITS,
)
STRONG_SSLMODES = ("require", "verify-ca", "verify-full")
VERIFYING_SSLMODES = ("verify-ca", "verify-full")
SSLNEGOTIATIONS = ("auto", "direct", "postgres")
# Each of these uses a different name: the service's guide, its Node kit, its Python
# templates and its agent templates.
ENDPOINT_VARIABLES = (
    "ENDPOINT_NAME",
    "LAKEBASE_ENDPOINT",
    "PGENDPOINT",
    "LAKEBASE_AUTOSCALING_ENDPOINT",
)
# Hosts of Lakebase Provisioned, the older kind of database.
_PROVISIONED = r"instance-[^.]*\.database\..*"
_ENDPOINT = r"projects/[^/\s]+/branches/[^/\s]+/endpoints/[^/\s]+"


def resolve_target(
    settings_dict: Mapping[str, Any],
    alias: str,
    environ: Mapping[str, str] | None = None,
) -> Target:
    """
    Return the Target of *settings_dict* and *environ*, without changing either.

    By default, *environ* is that of the process. Raises SettingsError if the settings
    or the variables are invalid.
    """
    sources = Sources(settings_dict, alias, environ)
    _check_conversions(sources)
    _check_service(sources)
    if not sources.password:
        _check_authentication(sources)
    login, is_token = resolve_login(sources), is_password_token(sources)
    endpoint = _endpoint(sources)
    sslmode, sslrootcert = _tls(sources, sends_token=login is not None or is_token)
    host, database, user = _host(sources), sources.field("NAME"), sources.field("USER")
    schema = resolve_schema(sources)
    _reject_url(sources, database, "database name")
    _reject_url(sources, user, "user")
    return Target(
        alias=alias,
        label=sources.label,
        login=login,
        endpoint=endpoint.text,
        endpoint_setting=endpoint.name,
        host=host,
        host_setting=sources.host_setting,
        port=_port(sources),
        database=None if sources.is_maintenance else database.text,
        user=user.text,
        user_setting=user.name,
        hostaddr=_hostaddr(sources),
        sslmode=sslmode,
        sslrootcert=sslrootcert,
        sslnegotiation=_sslnegotiation(sources),
        connect_timeout=_connect_timeout(sources),
        schema=schema,
        libpq_options=resolve_server_settings(
            sources, schema, is_pooled=is_pooled_host(host)
        ),
        connect_budget=_budget(sources),
        reconnect=bool(sources.options.get("reconnect", True)),
        refresh_before_fork=bool(sources.options.get("refresh_before_fork", True)),
        options=_other_options(sources),
        password_setting=sources.password.name,
        is_password_token=is_token,
        password_key=password_key(sources),
    )


def _check_conversions(sources: Sources) -> None:
    """Reject text that is neither a boolean nor a number where one is required."""
    options = sources.settings.get("OPTIONS") or {}
    if not isinstance(options, dict):
        raise sources.rejection("options-invalid", kind=type(options).__name__)
    values = {**converted(sources.settings), **converted(sources.options)}
    for key, value in values.items():
        if not isinstance(value, str) or key == "pool":
            continue
        problem, fix = "this is not a whole number", "Use a whole number."
        if key == "CONN_MAX_AGE":
            fix = "Use a whole number of seconds, or None for no limit."
        if PARSERS[key] is parse_boolean:
            problem = "this is neither true nor false"
            fix = "Use True or False, or the text true or false."
        name = key if key.isupper() else f'OPTIONS["{key}"]'
        raise sources.invalid(Value(value, name), problem, fix)


def _check_service(sources: Sources) -> None:
    """Reject variables that would replace a service or its host."""
    option, service = sources.option("service"), sources.variable("PGSERVICE")
    if service and not option:
        raise sources.rejection(
            "libpq-variable",
            service,
            problem="libpq would read another host, user or sslmode from its service "
            "file",
            fix="Unset PGSERVICE for this process, or name the service in "
            'OPTIONS["service"].',
        )
    # psycopg itself reads these variables, but not the service file.
    host = sources.variable("PGHOST", "PGHOSTADDR")
    if host and option:
        raise sources.rejection(
            "libpq-variable",
            host,
            problem=f"it would replace the host of {option.name}, {option.text}",
            fix=f"Unset {host.name} for this process, or replace "
            'OPTIONS["service"] with HOST, PORT, NAME and USER.',
        )


def _check_authentication(sources: Sources) -> None:
    """Reject settings with which libpq would not send a token."""
    given = sources.option("require_auth") or sources.variable("PGREQUIREAUTH")
    methods = [method.strip() for method in given.text.split(",") if method.strip()]
    is_negative = any(method.startswith("!") for method in methods)
    allows = "!password" not in methods if is_negative else "password" in methods
    if methods and not allows:
        raise sources.rejection(
            "libpq-variable",
            given,
            problem="a token is sent with the method password, which this does not "
            "allow",
            fix=f'Remove {given.name}, or set it to "password".',
        )
    binding = sources.option("channel_binding") or sources.variable("PGCHANNELBINDING")
    if binding.text == "require":
        raise sources.rejection(
            "libpq-variable",
            binding,
            problem="a login with a token has no channel binding",
            fix=f'Remove {binding.name}, or set it to "prefer".',
        )


def _endpoint(sources: Sources) -> Value:
    given = [sources.option("endpoint")]
    if not sources.names_endpoint:
        given += map(sources.variable, ENDPOINT_VARIABLES)
    found = [Value(v.text.strip("/") or v.text, v.name) for v in given if v]
    if len({value.text for value in found}) > 1:
        named = ", ".join(f'{name} is "{text}"' for text, name in found)
        raise sources.rejection("endpoint-ambiguous", given=named)
    if found and not re.fullmatch(_ENDPOINT, found[0].text):
        raise sources.rejection("endpoint-malformed", found[0])
    if not found and not sources.password:
        # The workspace is asked later which endpoint has the host.
        _check_host_without_endpoint(sources, sources.field("HOST"))
    return found[0] if found else Value()


def _check_host_without_endpoint(sources: Sources, host: Value) -> None:
    if not host:
        raise sources.rejection("endpoint-missing")
    if re.fullmatch(_PROVISIONED, host.text.lower()):
        option = endpoint_option(sources.host_setting)
        raise sources.rejection("host-provisioned", host, endpoint_option=option)


def _host(sources: Sources) -> str:
    host = sources.field("HOST")
    if host.text.startswith(("/", "@")):
        raise sources.rejection("host-socket", host)
    # libpq accepts a list. The service compares the name in TLS as it is.
    texts = [text.strip().lower() for text in host.text.split(",")]
    for text in texts:
        one = Value(text, host.name)
        _reject_url(sources, one, "host", r"[\s=@/]")
        bare, colon, port = text.partition(":")
        if colon and ":" not in port:
            fix = f'Set {host.name} to "{bare}", and PORT (PGPORT) to "{port}".'
            raise sources.invalid(one, "it includes a port", fix)
    return ",".join(texts)


def _reject_url(
    sources: Sources, value: Value, noun: str, pattern: str = "://"
) -> None:
    """Reject *value* if it contains *pattern*, as a connection URL does."""
    if re.search(pattern, value.text):
        fix = (
            f"Set {value.name} to the {noun} alone. To use a connection URL, parse it "
            "with dj-database-url or django-environ, as docs/howto/urls.md describes."
        )
        raise sources.invalid(value, f"this is not a {noun}", fix)


def _port(sources: Sources) -> str:
    port = sources.field("PORT")
    if not port:
        return "" if sources.option("service") else DEFAULT_PORT
    is_number = re.fullmatch(r"[0-9]{1,5}", port.text)
    if not is_number or not 0 < int(port.text) <= LAST_PORT:
        raise sources.rejection("port-invalid", port)
    return port.text


def _hostaddr(sources: Sources) -> str:
    value = sources.option_or_variable("hostaddr", "LAKEBASE_HOSTADDR")
    # libpq accepts a list: one address for each host.
    for address in filter(None, value.text.split(",")):
        try:
            ipaddress.ip_address(address.strip())
        except ValueError:
            one = Value(address, value.name)
            raise sources.rejection("hostaddr-invalid", one) from None
    return value.text


def _tls(sources: Sources, *, sends_token: bool) -> tuple[str, str]:
    """
    Return sslmode and sslrootcert.

    If neither settings nor environment set a mode, a server must prove its name before
    it gets a token.
    """
    given = sources.option("sslmode") or sources.variable("PGSSLMODE")
    rootcert = sources.option("sslrootcert") or sources.variable("PGSSLROOTCERT")
    mode, authority = given.text.lower(), rootcert.text
    service = sources.option("service")
    if not mode and service:
        raise sources.rejection("sslmode-missing", service)
    if mode and mode not in STRONG_SSLMODES:
        raise sources.rejection("sslmode-weak", given)
    if authority == PUBLIC_AUTHORITIES and mode not in ("", "verify-full"):
        # libpq rejects this too: otherwise it would accept any certificate that a
        # public authority has signed.
        problem = f"{rootcert.name} is system, which needs verify-full"
        fix = f"Set {given.name} to verify-full, or remove it."
        raise sources.invalid(given, problem, fix)
    if not mode:
        verifies = sends_token or authority == PUBLIC_AUTHORITIES
        mode = "verify-full" if verifies else "require"
    if authority or service or mode not in VERIFYING_SSLMODES:
        return mode, authority
    if mode == "verify-ca":
        problem = "it needs the file of a certificate authority"
        fix = (
            'Set OPTIONS["sslrootcert"] (PGSSLROOTCERT) to that file, or use '
            "verify-full, which trusts the public authorities."
        )
        raise sources.invalid(given, problem, fix)
    return mode, PUBLIC_AUTHORITIES


def _sslnegotiation(sources: Sources) -> str:
    given = sources.option("sslnegotiation")
    if given.text not in ("", *SSLNEGOTIATIONS):
        fix = f"Set it to {', '.join(SSLNEGOTIATIONS)}, or remove it."
        raise sources.invalid(given, "this is not a way to start TLS", fix)
    if given.text == "direct" and not has_direct_tls():
        problem = (
            f"psycopg uses libpq {psycopg.pq.version() // 10000}, which cannot do this"
        )
        fix = "Install libpq 17 or newer (psycopg[binary] 3.2.3), or remove it."
        raise sources.invalid(given, problem, fix)
    return given.text or "auto"


def _connect_timeout(sources: Sources) -> int | None:
    given = sources.option("connect_timeout") or sources.variable("PGCONNECT_TIMEOUT")
    if not given:
        return None
    try:
        return int(float(given.text))
    except (ValueError, OverflowError):
        fix = "Set it to a whole number of seconds, or remove it."
        raise sources.invalid(given, "this is not a number of seconds", fix) from None


def _budget(sources: Sources) -> float:
    given = sources.options.get("connect_budget", DEFAULT_BUDGET)
    budget = parse_number(given)
    if budget is None or not 0 < budget < float("inf"):
        raise sources.rejection("budget-invalid", Value(repr(given)))
    return budget


def _other_options(sources: Sources) -> Hashable:
    pool = sources.options.get("pool")
    if pool and pool is not True and not isinstance(pool, Mapping):
        raise sources.rejection("pool-invalid", Value(repr(pool)))
    excluded = (*OWN_OPTIONS, "password")
    return _frozen({k: v for k, v in sources.options.items() if k not in excluded})


def _frozen(value: Any) -> Hashable:
    """Return *value* in a hashable form."""
    if isinstance(value, Mapping):
        return tuple(sorted((str(key), _frozen(item)) for key, item in value.items()))
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(item) for item in value)
    return value if isinstance(value, Hashable) else id(value)
