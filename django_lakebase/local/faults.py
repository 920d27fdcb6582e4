"""The table of all faults, and the registry of the faults that are on."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from .login_errors import MESSAGES, REJECTED_TOKEN_MESSAGES, ErrorResponse

Value: TypeAlias = str | float | bool


class FaultError(Exception):
    """An unknown fault, option or value; the text lists the known names."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    A fault, and its options with their defaults.

    The *summary* says what happens, and explains each option after a colon. *choices*
    has the valid values of each option that is a text.
    """

    summary: str
    options: Mapping[str, Value] = field(default_factory=dict)
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)


# The requests to which a fault of the API applies.
_REQUESTS = {"scope": ("credentials", "all")}

FAULTS = {
    "api-down": Fault("the API resets every connection"),
    "api-hang": Fault("the API accepts requests and never responds"),
    "api-slow": Fault(
        "the API responds slowly: ms (milliseconds), scope=credentials or all "
        "(requests)",
        {"ms": 150.0, "scope": "credentials"},
        _REQUESTS,
    ),
    "api-429": Fault(
        "the API responds with 429 and Retry-After: retry_after (seconds), count "
        "(number of these responses; 0: no limit), allowed_per_second (requests of "
        "each identity that succeed; 0: none), scope=credentials or all (requests)",
        {
            "retry_after": 1.0,
            "count": 0.0,
            "allowed_per_second": 0.0,
            "scope": "credentials",
        },
        _REQUESTS,
    ),
    "api-5xx": Fault(
        "the API responds with an error: status, count (number of these responses; "
        "0: no limit), scope=credentials or all (requests)",
        {"status": 503.0, "count": 0.0, "scope": "all"},
        _REQUESTS,
    ),
    "api-malformed": Fault(
        "the API responds with 200 and an invalid body: body=html, text, list (valid "
        "JSON, but no object), truncated (JSON) or empty, scope=credentials or all "
        "(requests)",
        {"body": "html", "scope": "credentials"},
        {"body": ("html", "text", "list", "truncated", "empty"), **_REQUESTS},
    ),
    "empty-credential": Fault("the API issues credentials without a token"),
    "no-workspace-access": Fault(
        "the API responds with 403, because the identity lacks workspace access"
    ),
    "api-token-rejected": Fault(
        "the API rejects its own tokens with 403: issued_before (only tokens issued "
        "before this time, in seconds since 1970, so that a new login helps; 0: all), "
        "message=invalid or expired",
        {"issued_before": 0.0, "message": "invalid"},
        {"message": tuple(REJECTED_TOKEN_MESSAGES)},
    ),
    "secret-revoked": Fault(
        "the API rejects the client secret and all tokens issued for it"
    ),
    "secret-expires": Fault(
        "the client secret expires soon, as the API lists it: days (from now)",
        {"days": 3.0},
    ),
    "no-secret-access": Fault(
        "the API responds with 403 to requests for the list of client secrets"
    ),
    "ip-blocked": Fault(
        "the workspace blocks the client's IP address: scope=both, api or login",
        {"scope": "both"},
        {"scope": ("both", "api", "login")},
    ),
    "short-token-lifetime": Fault(
        "database tokens expire early, whatever their expire_time: seconds (lifetime)",
        {"seconds": 5.0},
    ),
    "clock-skew": Fault(
        "the clock that sets expire_time is wrong: seconds (above 0: ahead)",
        {"seconds": -7200.0},
    ),
    "suspend": Fault(
        "all endpoints scale to zero and end their sessions: wake_seconds (how long "
        "the next login waits)",
        {"wake_seconds": 1.0},
    ),
    "server-starting": Fault(
        "logins are rejected because the server is starting: seconds (0: until the "
        "fault is cleared)",
        {"seconds": 1.0},
    ),
    "endpoint-disabled": Fault("the endpoint is disabled"),
    "endpoint-moved": Fault("the endpoint gets a new host name"),
    "role-missing": Fault("the service principal's role does not exist"),
    "role-without-label": Fault(
        "the role does not accept tokens, as after a plain CREATE ROLE"
    ),
    "grants-revoked": Fault(
        "privileges of the role are revoked: privilege=connect (to the database) or "
        "schema (all on the schema public)",
        {"privilege": "connect"},
        {"privilege": ("connect", "schema")},
    ),
    "grants-reset": Fault(
        "the service principal loses its privileges on the schema public, as when the "
        "database resource of an app is attached again"
    ),
    "too-many-connections": Fault(
        "logins are rejected at the connection limit: limit (open connections)",
        {"limit": 0.0},
    ),
    "reject-logins": Fault(
        "logins are rejected: count (number of logins; 0: no limit), issued_before "
        "(only tokens issued before this time, in seconds since 1970; 0: all), message "
        "(" + ", ".join(MESSAGES) + ")",
        {"count": 0.0, "issued_before": 0.0, "message": "jwt"},
        {"message": tuple(MESSAGES)},
    ),
    "direct-tls": Fault(
        "direct TLS (sslnegotiation=direct) fails, and TLS after an SSLRequest works: "
        "mode=reject (an error without TLS), reset (closed immediately, as by "
        "PostgreSQL before 17), silent (no response), no-alpn (closed after a "
        "handshake without ALPN) or close (closed after a handshake with ALPN)",
        {"mode": "reject"},
        {"mode": ("reject", "reset", "silent", "no-alpn", "close")},
    ),
    "new-authority": Fault(
        "the gateway's certificate comes from another authority, which PGSSLROOTCERT "
        "does not contain"
    ),
    "reset-connections": Fault(
        "open connections are reset once: state=all, idle or busy",
        {"state": "all"},
        {"state": ("all", "idle", "busy")},
    ),
    "freeze-connections": Fault("open connections stop transferring data"),
    "latency": Fault(
        "each round trip on a new connection takes longer: ms (milliseconds)",
        {"ms": 10.0},
    ),
}
# Faults that act once and do not stay on.
ONE_SHOT = ("reset-connections",)


def parse_fault(text: str) -> tuple[str, dict[str, Value]]:
    """Parse ``NAME`` or ``NAME:key=value,key=value`` from a command line."""
    name, _, rest = text.partition(":")
    pairs = [pair for pair in rest.split(",") if pair]
    return name, parse_options(name, pairs)


def parse_options(name: str, pairs: list[str]) -> dict[str, Value]:
    """Parse ``key=value`` arguments for the fault *name*."""
    options: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FaultError(f'"{pair}" does not have the form key=value.')
        options[key] = value
    return validate_options(name, options)


def validate_options(name: str, given: Mapping[str, object]) -> dict[str, Value]:
    """Return the options of *name*: the defaults, updated with the *given* values."""
    fault = FAULTS.get(name)
    if fault is None:
        known = "\n".join(f"  {known}: {f.summary}" for known, f in FAULTS.items())
        raise FaultError(f'There is no fault "{name}". Available faults:\n{known}')
    options = dict(fault.options)
    for key, value in given.items():
        if key not in options:
            known = ", ".join(fault.options) or "none"
            raise FaultError(
                f'The fault "{name}" has no option "{key}". Its options: {known}.'
            )
        options[key] = _convert(key, value, options[key], fault.choices)
    return options


def _convert(
    key: str, value: object, default: Value, choices: Mapping[str, Sequence[str]]
) -> Value:
    if isinstance(default, bool):
        return str(value).lower() in ("1", "true", "yes", "on")
    if isinstance(default, float):
        try:
            return float(str(value))
        except ValueError:
            raise FaultError(
                f'The option "{key}" is "{value}", which is not a number.'
            ) from None
    if str(value) not in choices[key]:
        known = ", ".join(choices[key])
        raise FaultError(
            f'The option "{key}" cannot be "{value}". Choose one of: {known}.'
        )
    return str(value)


class FaultRegistry:
    """The faults that are on."""

    def __init__(self) -> None:
        self._on: dict[str, dict[str, Value]] = {}
        self._changed = asyncio.Event()

    def set(self, name: str, given: Mapping[str, object]) -> dict[str, Value]:
        """Switch the fault *name* on, and return its options."""
        options = validate_options(name, given)
        if name not in ONE_SHOT:
            self._on[name] = options
        self._notify()
        return options

    def clear(self, name: str | None = None) -> None:
        """Switch off the fault *name*, or all faults. Raises FaultError."""
        if name is None:
            self._on.clear()
        elif name in FAULTS:
            self._on.pop(name, None)
        else:
            validate_options(name, {})
        self._notify()

    async def wait_until_cleared(self, name: str) -> None:
        """Wait until the fault *name* is off."""
        while name in self._on:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def get(self, name: str) -> dict[str, Value] | None:
        """Return the options of the fault *name*, or None if it is off."""
        return self._on.get(name)

    def get_number(self, name: str, key: str) -> float:
        """Return the option *key* of the fault *name*, or 0 if the fault is off."""
        return float((self._on.get(name) or {}).get(key, 0.0))

    def list_active(self) -> dict[str, dict[str, Value]]:
        """Return the faults that are on, with their options."""
        return {name: dict(options) for name, options in self._on.items()}

    def consume(self, name: str) -> dict[str, Value] | None:
        """
        Count one occurrence of the fault *name*, and return its options.

        The last occurrence switches the fault off. Returns None if it is off.
        """
        options = self._on.get(name)
        if options is None:
            return None
        count = float(options.get("count", 0.0))
        if count:
            options["count"] = count - 1
            if count <= 1:
                self.clear(name)
        return options

    def reject_login(self, user: str, issued_at: float) -> ErrorResponse | None:
        """
        Return the error for a login, and count the rejection.

        *issued_at* is the time of the login's token, in seconds since 1970. Returns
        None if the login is not rejected.
        """
        issued_before = self.get_number("reject-logins", "issued_before")
        if issued_before and issued_at >= issued_before:
            return None
        options = self.consume("reject-logins")
        if options is None:
            return None
        return MESSAGES[str(options["message"])](user)
