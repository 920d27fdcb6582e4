"""The table of all faults, and the registry of the faults that are on."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from django_lakebase.local.gateway.login_errors import MESSAGES, REJECTED_TOKEN_TEXTS
from django_lakebase.local.gateway.wire import ErrorResponse

Value: TypeAlias = str | float | bool


class FaultError(Exception):
    """An unknown fault, option or value; the text lists the known names."""


@dataclass(frozen=True, slots=True)
class Fault:
    """
    A fault, and its options with their defaults.

    The *summary* says what happens, and explains each option after a colon.
    """

    summary: str
    options: Mapping[str, Value] = field(default_factory=dict)


CHOICES = {
    "path": ("credentials", "all"),
    "shape": ("html", "text", "list", "cut-off", "nothing"),
    "where": ("both", "api", "login"),
    "what": ("connect", "schema"),
    "which": ("all", "idle", "busy"),
    "message": tuple(MESSAGES),
    "text": tuple(REJECTED_TOKEN_TEXTS),
}

FAULTS = {
    "api-down": Fault("the API resets every connection"),
    "api-silent": Fault("the API accepts requests and never responds"),
    "api-slow": Fault(
        "the API responds slowly: ms (milliseconds), path=credentials or all",
        {"ms": 150.0, "path": "credentials"},
    ),
    "api-429": Fault(
        "the API responds with 429 and Retry-After: retry_after (seconds), count "
        "(number of these responses; 0: no limit), per_second (requests of each "
        "principal that succeed; 0: none), path=credentials or all",
        {
            "retry_after": 1.0,
            "count": 0.0,
            "per_second": 0.0,
            "path": "credentials",
        },
    ),
    "api-5xx": Fault(
        "the API responds with an error: status, count (number of these responses; "
        "0: no limit), path=credentials or all",
        {"status": 503.0, "count": 0.0, "path": "all"},
    ),
    "api-malformed": Fault(
        "the API responds with 200 and an invalid body: shape=html, text, list, "
        "cut-off or nothing, path=credentials or all",
        {"shape": "html", "path": "credentials"},
    ),
    "empty-credential": Fault("the API issues credentials without a token"),
    "no-workspace-access": Fault(
        "the API responds with 403, because the identity lacks workspace access"
    ),
    "dead-token": Fault(
        "the API rejects its own tokens with 403: before (only tokens issued before "
        "this time, in seconds since 1970, so that a new login helps; 0: all), "
        "text=invalid or expired",
        {"before": 0.0, "text": "invalid"},
    ),
    "secret-revoked": Fault(
        "the API rejects the client secret and all tokens issued for it"
    ),
    "ip-blocked": Fault(
        "the workspace blocks the client's IP address: where=both, api or login",
        {"where": "both"},
    ),
    "token-life": Fault(
        "database tokens expire early, whatever their expire_time: seconds (lifetime)",
        {"seconds": 5.0},
    ),
    "clock-skew": Fault(
        "the clock that sets expire_time is wrong: seconds (above 0: ahead)",
        {"seconds": -7200.0},
    ),
    "suspend": Fault(
        "all endpoints scale to zero and end their sessions: wake (seconds that the "
        "next login waits)",
        {"wake": 1.0},
    ),
    "starting": Fault(
        "logins are refused because the server is starting: seconds (0: until the "
        "fault is cleared)",
        {"seconds": 1.0},
    ),
    "endpoint-disabled": Fault("the endpoint is disabled"),
    "endpoint-moved": Fault("the endpoint gets a new host name"),
    "role-missing": Fault("the service principal's role does not exist"),
    "role-unlabelled": Fault(
        "the role does not accept tokens, as after a plain CREATE ROLE"
    ),
    "no-grants": Fault(
        "privileges of the role are revoked: what=connect (database) or schema",
        {"what": "connect"},
    ),
    "too-many-connections": Fault(
        "logins are refused at the connection limit: limit (open connections)",
        {"limit": 0.0},
    ),
    "refuse-logins": Fault(
        "logins are refused: count (number of logins; 0: no limit), before (only "
        "tokens issued before this time, in seconds since 1970; 0: all), message ("
        + ", ".join(MESSAGES)
        + ")",
        {"count": 0.0, "before": 0.0, "message": "jwt"},
    ),
    "cut": Fault(
        "open connections are reset once: which=all, idle or busy", {"which": "all"}
    ),
    "stall": Fault("open connections stop transferring data"),
    "latency": Fault(
        "each round trip on a new connection takes longer: ms (milliseconds)",
        {"ms": 10.0},
    ),
}
# Faults that act once and do not stay on.
ONE_SHOT = ("cut",)


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
        options[key] = _convert(key, value, options[key])
    return options


def _convert(key: str, value: object, default: Value) -> Value:
    if isinstance(default, bool):
        return str(value).lower() in ("1", "true", "yes", "on")
    if isinstance(default, float):
        try:
            return float(str(value))
        except ValueError:
            raise FaultError(
                f'The option "{key}" is "{value}", which is not a number.'
            ) from None
    if str(value) not in CHOICES[key]:
        known = ", ".join(CHOICES[key])
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

    def refuse_login(self, user: str, issued_at: float) -> ErrorResponse | None:
        """
        Return the error for a login, and count the refusal.

        *issued_at* is the time of the login's token, in seconds since 1970. Returns
        None if the login is not refused.
        """
        before = self.get_number("refuse-logins", "before")
        if before and issued_at >= before:
            return None
        options = self.consume("refuse-logins")
        if options is None:
            return None
        return MESSAGES[str(options["message"])](user)
