"""The misbehaviours that can be switched on, as one table, and those that are on."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from .wire import Refusal

Value: TypeAlias = str | float | bool


class FaultError(Exception):
    """There is no such fault or setting; the text says which there are."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What a fault does, and its settings with their defaults."""

    means: str
    settings: Mapping[str, Value] = field(default_factory=dict)


VOICES = (
    "jwt",
    "expired",
    "password",
    "label",
    "decode",
    "sasl",
    "authorization",
    "starting",
    "disabled",
    "too-many",
    "unknown",
)
CHOICES = {
    "mode": ("refuse", "503", "hang"),
    "path": ("credentials", "all"),
    "which": ("all", "idle"),
    "voice": VOICES,
}

FAULTS = {
    "api-down": Fault(
        "the API answers nothing: mode=refuse (reset), 503, or hang",
        {"mode": "refuse"},
    ),
    "api-slow": Fault(
        "each answer takes ms milliseconds: path=credentials, or all",
        {"ms": 150.0, "path": "credentials"},
    ),
    "no-workspace-access": Fault("the identity lacks the entitlement: 403"),
    "secret-revoked": Fault("the client secret and tokens made with it are refused"),
    "empty-credential": Fault("credentials come without a token"),
    "clock-skew": Fault(
        "the service's clock is seconds ahead (less than 0: behind)",
        {"seconds": -7200.0},
    ),
    "role-missing": Fault("logins are refused as if the role had not been made"),
    "refuse-logins": Fault(
        "logins are refused: count (0: all), before (only tokens issued before this "
        "moment, seconds since 1970), voice (" + ", ".join(VOICES) + ")",
        {"count": 0.0, "before": 0.0, "voice": "jwt"},
    ),
    "suspend": Fault(
        "connections end as by scale to zero; the next login takes wake seconds, or "
        "logins are refused for so long (refuse=true)",
        {"wake": 1.0, "refuse": False},
    ),
    "cut": Fault("connections are reset, once: which=all or idle", {"which": "all"}),
    "latency": Fault("each round trip takes ms milliseconds more", {"ms": 10.0}),
}
# Done at once, and over.
ONCE = ("cut",)


def parse(text: str) -> tuple[str, dict[str, Value]]:
    """Read ``NAME`` or ``NAME:key=value,key=value`` of a command line."""
    name, _, rest = text.partition(":")
    pairs = [pair for pair in rest.split(",") if pair]
    return name, read_settings(name, pairs)


def read_settings(name: str, pairs: list[str]) -> dict[str, Value]:
    """Read ``key=value`` words for the fault *name*."""
    settings: dict[str, Value] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FaultError(f'"{pair}" is not of the form key=value.')
        settings[key] = value
    return checked(name, settings)


def checked(name: str, given: Mapping[str, object]) -> dict[str, Value]:
    """Return the settings of *name*, *given* ones over the defaults."""
    fault = FAULTS.get(name)
    if fault is None:
        known = "\n".join(f"  {known}: {f.means}" for known, f in FAULTS.items())
        raise FaultError(f'There is no fault "{name}". There are:\n{known}')
    settings = dict(fault.settings)
    for key, value in given.items():
        if key not in settings:
            known = ", ".join(fault.settings) or "none"
            raise FaultError(f'"{name}" has no setting "{key}"; it has: {known}.')
        settings[key] = _converted(key, value, settings[key])
    return settings


def _converted(key: str, value: object, default: Value) -> Value:
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


class Faults:
    """The faults that are on."""

    def __init__(self) -> None:
        self._on: dict[str, dict[str, Value]] = {}
        self._changed = asyncio.Event()

    def set(self, name: str, given: Mapping[str, object]) -> None:
        """Switch *name* on."""
        settings = checked(name, given)
        if name not in ONCE:
            self._on[name] = settings
        self._tell()

    def clear(self, name: str | None = None) -> None:
        """Switch *name* off, or all."""
        if name is None:
            self._on.clear()
        elif name in FAULTS:
            self._on.pop(name, None)
        else:
            checked(name, {})
        self._tell()

    async def cleared(self, name: str) -> None:
        """Wait until *name* is off."""
        while name in self._on:
            await self._changed.wait()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def get(self, name: str) -> dict[str, Value] | None:
        """Return the settings of *name* if it is on."""
        return self._on.get(name)

    def number(self, name: str, key: str) -> float:
        """Return a number of *name*, 0 where it is off."""
        return float((self._on.get(name) or {}).get(key, 0.0))

    def listed(self) -> dict[str, dict[str, Value]]:
        """Return all that are on."""
        return {name: dict(settings) for name, settings in self._on.items()}

    def refuse_login(self, user: str, issued_at: float) -> Refusal | None:
        """Return the refusal that a login meets, counting it, or None."""
        if self.get("role-missing") is not None:
            return Refusal(f'role "{user}" does not exist', "28000", "FATAL")
        settings = self._on.get("refuse-logins")
        if settings is None:
            return None
        before, count = float(settings["before"]), float(settings["count"])
        if before and issued_at >= before:
            return None
        if count:
            settings["count"] = count - 1
            if count <= 1:
                self.clear("refuse-logins")
        return voice(str(settings["voice"]), user)


def voice(name: str, user: str) -> Refusal:
    """Return a refusal in the words of one of the service's layers."""
    expired = f"JWT token has expired (exp={int(time.time()) - 1})"
    voices = {
        "jwt": Refusal("Provided authentication token is not a valid JWT encoding"),
        "expired": Refusal(expired),
        "password": Refusal(f"password authentication failed for user '{user}'"),
        "label": Refusal(
            "An oauth token was supplied but no role security label was configured "
            f'in postgres for role "{user}"',
            "28P01",
            "FATAL",
        ),
        "decode": Refusal(
            f'Failed to decode token for role "{user}" and native postgres login was '
            "either not attempted due to configuration or failed.",
            "28P01",
            "FATAL",
        ),
        "sasl": Refusal("SASL authentication failed", "08P01", "FATAL"),
        "authorization": Refusal(
            "External authorization failed.",
            "28000",
            "FATAL",
            "This could be due to paused instances, disabling readable secondaries, "
            "IP ACLs or private link configuration.",
        ),
        "starting": Refusal("the database system is starting up", "57P03", "FATAL"),
        "disabled": Refusal("Control plane request failed: endpoint is disabled"),
        "too-many": Refusal("sorry, too many clients already", "53300", "FATAL"),
        "unknown": Refusal("the moon is in the wrong house", "XX000", "FATAL"),
    }
    return voices[name]
