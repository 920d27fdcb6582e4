"""
The troubles: what is made to fail, and what an error may be called meanwhile.

Most are faults of the local Lakebase. The others are told to the writers (*order*):
forks, killed threads, pools that are used up, names that nobody resolves.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Moments that are known only when a trouble begins.
NOW = "now"
# Long enough that a fork or a kill falls into a fetch.
SLOW = {"ms": 700}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """
    One thing that goes wrong for a while.

    *ids* are the rows of the table of failures that may be raised; empty where users
    must be spared. *loses* is what may happen to open connections: their statements
    end with *words*. With *forgets* the writers' credentials may be dropped first.
    """

    name: str
    fault: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    ids: frozenset[str] = frozenset()
    words: str = ""
    order: str = ""
    forgets: bool = False
    pool_only: bool = False

    @property
    def thing(self) -> str:
        """What cannot be used twice at a time."""
        return self.fault or self.order.partition(" ")[0]


CUT = (
    r"server closed the connection|terminating connection|connection reset|"
    r"SSL SYSCALL|unexpected eof|could not receive|could not send|"
    r"the connection is lost|consuming input failed|sending query"
)


def _api(name, ids, fault=None, **settings):
    return Trouble(
        name=name,
        fault=fault or name,
        settings=settings,
        ids=frozenset(ids.split()),
        forgets=True,
    )


def _login(name, ids, fault=None, words="", **settings):
    return Trouble(
        name=name,
        fault=fault or name,
        settings=settings,
        ids=frozenset(ids.split()),
        words=words,
    )


def _voice(voice, ids):
    return _login(f"refuse {voice}", ids, "refuse-logins", voice=voice)


def _told(name, ids, order, **own):
    return Trouble(name=name, ids=frozenset(ids.split()), order=order, **own)


TROUBLES = (
    _api("api-down", "api-unreachable"),
    _api("api-silent", "api-unreachable"),
    _api("api-slow", "api-unreachable", ms=900, path="all"),
    _api("api-429", "api-throttled"),
    _api("api-429 everywhere", "api-throttled", "api-429", path="all"),
    _api("api-5xx 503", "api-unreachable", "api-5xx"),
    _api("api-5xx 500", "api-unreachable", "api-5xx", status=500),
    _api("api-malformed html", "answer-unusable", "api-malformed"),
    _api("api-malformed text", "answer-unusable", "api-malformed", shape="text"),
    _api("api-malformed list", "answer-unusable", "api-malformed", shape="list"),
    _api("api-malformed cut", "answer-unusable", "api-malformed", shape="cut-off"),
    _api("api-malformed empty", "empty-credential", "api-malformed", shape="nothing"),
    _api("api-malformed everywhere", "answer-unusable", "api-malformed", path="all"),
    _api("empty-credential", "empty-credential"),
    _api("no-workspace-access", "workspace-access-missing"),
    _api("secret-revoked", "bad-client-secret"),
    _api("ip-blocked", "ip-blocked address-refused"),
    _api("ip-blocked api", "ip-blocked", "ip-blocked", where="api"),
    _login("ip-blocked login", "address-refused", "ip-blocked", where="login"),
    _login("token-life", "token-expired", seconds=1),
    _api("clock-skew behind", "clock-skew token-expired", "clock-skew"),
    _api("clock-skew ahead", "clock-skew token-expired", "clock-skew", seconds=7200),
    _login("suspend", "waking", words=CUT),
    _login("suspend for long", "waking", "suspend", words=CUT, wake=60),
    _login("starting", "waking"),
    _login("starting for long", "waking", "starting", seconds=0),
    _login("endpoint-disabled", "endpoint-disabled", words=CUT),
    _login("endpoint-moved", "wrong-host", words=CUT),
    _login("role-missing", "role-missing"),
    _login("role-unlabelled", "wrong-user"),
    _login("no-grants", "permission-denied"),
    _login(
        "no-grants schema",
        "",
        "no-grants",
        # PostgreSQL finds no table by its bare name in a schema without USAGE.
        words=r"permission denied for (schema|table)|relation .* does not exist",
        what="schema",
    ),
    _login("too-many-connections", "too-many-connections"),
    _login("tokens so far refused", "", "refuse-logins", before=NOW),
    _voice("jwt", "token-refused"),
    _voice("expired", "token-expired"),
    _voice("not-yet", "token-early"),
    _voice("password", "token-refused"),
    _voice("authorization", "external-authorization"),
    _voice("control-plane", "waking"),
    _voice("quota", "endpoint-unavailable"),
    _voice("permit", "waking"),
    _voice("slow", "waking"),
    _voice("shutdown", "waking"),
    _voice("german", "unexplained"),
    _login("cut", "", words=CUT),
    _login("cut idle", "", "cut", which="idle", words=CUT),
    _login("cut busy", "", "cut", which="busy", words=CUT),
    _login("stall", "pool-exhausted"),
    _login("latency", "", ms=40),
    # Told to the writers.
    _told("fork in a refresh", "", "fork warm", fault="api-slow", settings=SLOW),
    _told("fork in a first fetch", "", "fork cold", fault="api-slow", settings=SLOW),
    _told("thread killed in a fetch", "", "kill", fault="api-slow", settings=SLOW),
    _told("pool exhausted", "pool-exhausted", "hog", pool_only=True),
    _told("no names for a while", "waking api-unreachable", "resolve again"),
    _told("no such name", "wrong-host api-unreachable", "resolve gone"),
)
