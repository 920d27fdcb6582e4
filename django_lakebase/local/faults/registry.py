"""The faults that can be switched on, as one table, and those that are on."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from django_lakebase.local.gateway.messages import MESSAGES, REJECTED_TOKEN_TEXTS
from django_lakebase.local.gateway.wire import ErrorResponse

Value: TypeAlias = str | float | bool


class FaultError(Exception):
    """There is no such fault or option; the text says which there are."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and its options with their defaults."""

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
    "api-silent": Fault("the API accepts requests and never answers"),
    "api-slow": Fault(
        "each answer takes ms milliseconds: path=credentials, or all",
        {"ms": 150.0, "path": "credentials"},
    ),
    "api-429": Fault(
        "the API answers 429 with Retry-After: retry_after (seconds), count (0: "
        "always), per_second (so many of each principal are let through; 0: none), "
        "path=credentials, or all",
        {
            "retry_after": 1.0,
            "count": 0.0,
            "per_second": 0.0,
            "path": "credentials",
        },
    ),
    "api-5xx": Fault(
        "the API answers with status: count (0: always), path=credentials, or all",
        {"status": 503.0, "count": 0.0, "path": "all"},
    ),
    "api-malformed": Fault(
        "the API answers 200 and nonsense: shape=html, text, list, cut-off or "
        "nothing; path=credentials, or all",
        {"shape": "html", "path": "credentials"},
    ),
    "empty-credential": Fault("credentials come without a token"),
    "no-workspace-access": Fault("the identity lacks the entitlement: 403"),
    "dead-token": Fault(
        "tokens for the API are refused with 403, and a new login may succeed: before "
        "(only tokens issued before this moment, seconds since 1970; 0: all), "
        "text=invalid or expired",
        {"before": 0.0, "text": "invalid"},
    ),
    "secret-revoked": Fault("the client secret and tokens made with it are refused"),
    "ip-blocked": Fault(
        "this address is not on the workspace's list: where=both, api or login",
        {"where": "both"},
    ),
    "token-life": Fault(
        "new credentials die after seconds, though they say --token-ttl",
        {"seconds": 5.0},
    ),
    "clock-skew": Fault(
        "the service's clock is seconds ahead (less than 0: behind)",
        {"seconds": -7200.0},
    ),
    "suspend": Fault(
        "connections end as by scale to zero; the next login takes wake seconds",
        {"wake": 1.0},
    ),
    "starting": Fault(
        "logins are refused for so many seconds, as by a server that starts (0: until "
        "cleared)",
        {"seconds": 1.0},
    ),
    "endpoint-disabled": Fault("the endpoint is disabled, until it is enabled"),
    "endpoint-moved": Fault("the endpoint has another host name"),
    "role-missing": Fault("the service principal's role is gone"),
    "role-unlabelled": Fault("the role takes no tokens, as after CREATE ROLE"),
    "no-grants": Fault(
        "what the role was granted is revoked: what=connect, or schema",
        {"what": "connect"},
    ),
    "too-many-connections": Fault(
        "logins are refused beyond limit open connections", {"limit": 0.0}
    ),
    "refuse-logins": Fault(
        "logins are refused: count (0: all), before (only tokens issued before this "
        "moment, seconds since 1970), message (" + ", ".join(MESSAGES) + ")",
        {"count": 0.0, "before": 0.0, "message": "jwt"},
    ),
    "cut": Fault(
        "connections are reset, once: which=all, idle or busy", {"which": "all"}
    ),
    "stall": Fault("no byte passes on the connections that are open"),
    "latency": Fault("each round trip takes ms milliseconds more", {"ms": 10.0}),
}
# These act once and do not stay on.
ONE_SHOT = ("cut",)


def parse_fault(text: str) -> tuple[str, dict[str, Value]]:
    """Read ``NAME`` or ``NAME:key=value,key=value`` of a command line."""
    name, _, rest = text.partition(":")
    pairs = [pair for pair in rest.split(",") if pair]
    return name, parse_options(name, pairs)


def parse_options(name: str, pairs: list[str]) -> dict[str, Value]:
    """Read ``key=value`` words for the fault *name*."""
    options: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FaultError(f'"{pair}" is not of the form key=value.')
        options[key] = value
    return validate_options(name, options)


def validate_options(name: str, given: Mapping[str, object]) -> dict[str, Value]:
    """Return the options of *name*: the *given* values over the defaults."""
    fault = FAULTS.get(name)
    if fault is None:
        known = "\n".join(f"  {known}: {f.summary}" for known, f in FAULTS.items())
        raise FaultError(f'There is no fault "{name}". There are:\n{known}')
    options = dict(fault.options)
    for key, value in given.items():
        if key not in options:
            known = ", ".join(fault.options) or "none"
            raise FaultError(f'"{name}" has no option "{key}"; it has: {known}.')
        options[key] = _convert(key, value, options[key])
    return options


def _convert(key: str, value: object, default: Value) -> Value:
    if isinstance(default, bool):
        return str(value).lower() in ("1", "true", "yes", "on")
    if isinstance(default, float):
        try:
            return float(str(value))
        except ValueError:
            raise FaultError(f'{key} is "{value}", not a number.') from None
    if str(value) not in CHOICES[key]:
        known = ", ".join(CHOICES[key])
        raise FaultError(f'There is no {key} "{value}"; there are: {known}.')
    return str(value)


class FaultRegistry:
    """The faults that are on."""

    def __init__(self) -> None:
        self._on: dict[str, dict[str, Value]] = {}
        self._changed = asyncio.Event()

    def set(self, name: str, given: Mapping[str, object]) -> dict[str, Value]:
        """Switch *name* on; return its options."""
        options = validate_options(name, given)
        if name not in ONE_SHOT:
            self._on[name] = options
        self._notify()
        return options

    def clear(self, name: str | None = None) -> None:
        """Switch *name* off, or all."""
        if name is None:
            self._on.clear()
        elif name in FAULTS:
            self._on.pop(name, None)
        else:
            validate_options(name, {})
        self._notify()

    async def wait_until_cleared(self, name: str) -> None:
        """Wait until *name* is off."""
        while name in self._on:
            await self._changed.wait()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def get(self, name: str) -> dict[str, Value] | None:
        """Return the options of *name* if it is on."""
        return self._on.get(name)

    def get_number(self, name: str, key: str) -> float:
        """Return a number of *name*, 0 where it is off."""
        return float((self._on.get(name) or {}).get(key, 0.0))

    def list_active(self) -> dict[str, dict[str, Value]]:
        """Return all that are on."""
        return {name: dict(options) for name, options in self._on.items()}

    def consume(self, name: str) -> dict[str, Value] | None:
        """Return the options of *name* if it is on, and count one occurrence."""
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
        """Return the refusal that a login meets, counting it, or None."""
        before = self.get_number("refuse-logins", "before")
        if before and issued_at >= before:
            return None
        options = self.consume("refuse-logins")
        if options is None:
            return None
        return MESSAGES[str(options["message"])](user)
