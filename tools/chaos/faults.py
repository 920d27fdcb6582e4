"""
The faults, and the errors that users may get while each of them is active.

Most are faults of the local Lakebase. The others are commands to the writer processes:
fork, kill a thread, exhaust the pool, fail to resolve names.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# A placeholder for the time at which the fault begins, in seconds since 1970.
NOW = "now"
# Long enough that a fork or a killed thread interrupts a fetch.
SLOW = {"ms": 700}


# These change the same role, and one of them renames it.
ROLE_FAULTS = ("role-missing", "role-without-label", "grants-revoked")


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    A fault that is active for a while.

    *failure_ids* are the rows of the failure table that users may get as errors; empty
    if the engine must hide the fault. A fault that breaks open connections has an
    *error_pattern* for the errors of their statements. With *drops_credentials* the
    writers may lose their cached credentials when the fault begins.
    """

    name: str
    # A fault of the local Lakebase and its options.
    emulator_fault: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    # A command to the writer processes.
    command: str = ""
    failure_ids: frozenset[str] = frozenset()
    error_pattern: str = ""
    drops_credentials: bool = False
    pool_only: bool = False

    @property
    def exclusive_key(self) -> str:
        """What two faults at the same time cannot share."""
        if self.emulator_fault in ROLE_FAULTS:
            return "role"
        return self.emulator_fault or self.command.partition(" ")[0]


CONNECTION_LOST = (
    r"server closed the connection|terminating connection|connection reset|"
    r"SSL SYSCALL|unexpected eof|could not receive|could not send|"
    r"the connection is lost|consuming input failed|sending query"
)


def _api(name: str, ids: str, fault: str | None = None, **options: Any) -> Fault:
    """Return a fault of the workspace API."""
    return Fault(
        name=name,
        emulator_fault=fault or name,
        options=options,
        failure_ids=frozenset(ids.split()),
        drops_credentials=True,
    )


def _login(
    name: str, ids: str, fault: str | None = None, pattern: str = "", **options: Any
) -> Fault:
    """Return a fault of the server."""
    return Fault(
        name=name,
        emulator_fault=fault or name,
        options=options,
        failure_ids=frozenset(ids.split()),
        error_pattern=pattern,
    )


def _command(name: str, ids: str, command: str, **attributes: Any) -> Fault:
    """Return a fault that the writer processes cause."""
    return Fault(
        name=name, failure_ids=frozenset(ids.split()), command=command, **attributes
    )


# The texts of a rejected login, and the failures they are recognised as.
_MESSAGES = {
    "jwt": "token-rejected",
    "expired": "token-expired",
    "not-yet": "token-early",
    "password": "token-rejected",
    "authorization": "external-authorization",
    "control-plane": "waking",
    "quota": "endpoint-unavailable",
    "permit": "waking",
    "slow": "waking",
    "shutdown": "waking",
    "german": "unexplained",
}

FAULTS = (
    _api("api-down", "api-unreachable"),
    _api("api-hang", "api-unreachable"),
    _api("api-slow", "api-unreachable", ms=900, scope="all"),
    _api("api-429", "api-throttled"),
    _api("api-429 everywhere", "api-throttled", "api-429", scope="all"),
    _api("api-5xx 503", "api-unreachable", "api-5xx"),
    _api("api-5xx 500", "api-unreachable", "api-5xx", status=500),
    _api("api-malformed html", "response-unusable", "api-malformed"),
    _api("api-malformed text", "response-unusable", "api-malformed", body="text"),
    _api("api-malformed list", "response-unusable", "api-malformed", body="list"),
    _api(
        "api-malformed truncated",
        "response-unusable",
        "api-malformed",
        body="truncated",
    ),
    _api("api-malformed empty", "empty-credential", "api-malformed", body="empty"),
    _api("api-malformed everywhere", "response-unusable", "api-malformed", scope="all"),
    _api("empty-credential", "empty-credential"),
    _api("no-workspace-access", "workspace-access-missing"),
    _api("secret-revoked", "bad-client-secret"),
    _api("ip-blocked", "ip-blocked address-rejected"),
    _api("ip-blocked api", "ip-blocked", "ip-blocked", scope="api"),
    _login("ip-blocked login", "address-rejected", "ip-blocked", scope="login"),
    _login("short-token-lifetime", "token-expired", seconds=1),
    _api("clock-skew behind", "clock-skew token-expired", "clock-skew"),
    _api("clock-skew ahead", "clock-skew token-expired", "clock-skew", seconds=7200),
    _login("suspend", "waking", pattern=CONNECTION_LOST),
    _login(
        "suspend for long",
        "waking",
        "suspend",
        pattern=CONNECTION_LOST,
        wake_seconds=60,
    ),
    _login("server-starting", "waking"),
    _login("server-starting for long", "waking", "server-starting", seconds=0),
    _login("endpoint-disabled", "endpoint-disabled", pattern=CONNECTION_LOST),
    _login("endpoint-moved", "wrong-host", pattern=CONNECTION_LOST),
    _login("role-missing", "role-missing"),
    _login("role-without-label", "wrong-user"),
    _login("grants-revoked", "permission-denied"),
    _login(
        "grants-revoked schema",
        "",
        "grants-revoked",
        # Without USAGE on a schema, PostgreSQL does not find its tables by name.
        pattern=r"permission denied for (schema|table)|relation .* does not exist",
        privilege="schema",
    ),
    _login("too-many-connections", "too-many-connections"),
    _login("existing tokens rejected", "", "reject-logins", issued_before=NOW),
    *(
        _login(f"reject {message}", failure_id, "reject-logins", message=message)
        for message, failure_id in _MESSAGES.items()
    ),
    _login("reset-connections", "", pattern=CONNECTION_LOST),
    _login(
        "reset-connections idle",
        "",
        "reset-connections",
        state="idle",
        pattern=CONNECTION_LOST,
    ),
    _login(
        "reset-connections busy",
        "",
        "reset-connections",
        state="busy",
        pattern=CONNECTION_LOST,
    ),
    _login("freeze-connections", "pool-exhausted"),
    _login("latency", "", ms=40),
    *(
        _login(f"direct-tls {mode}", "", "direct-tls", mode=mode)
        for mode in ("reject", "reset", "silent", "no-alpn", "close")
    ),
    _login("new-authority", ""),
    _command(
        "fork during a refresh",
        "",
        "fork keep-credential",
        emulator_fault="api-slow",
        options=SLOW,
    ),
    _command(
        "fork during a first fetch",
        "",
        "fork drop-credential",
        emulator_fault="api-slow",
        options=SLOW,
    ),
    _command(
        "thread killed during a fetch",
        "",
        "kill-fetch",
        emulator_fault="api-slow",
        options=SLOW,
    ),
    _command("pool exhausted", "pool-exhausted", "exhaust-pool", pool_only=True),
    _command("DNS fails temporarily", "waking api-unreachable", "fail-dns again"),
    _command("DNS name unknown", "wrong-host api-unreachable", "fail-dns gone"),
)
