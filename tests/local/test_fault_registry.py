"""The table of faults, and how it is set."""

import pytest

from django_lakebase.failures.classify import classify
from django_lakebase.failures.failure import Source
from django_lakebase.local.faults.registry import (
    FAULTS,
    FaultError,
    FaultRegistry,
    parse_fault,
)
from django_lakebase.local.gateway.messages import MESSAGES


def test_a_fault_is_read_from_a_command_line():
    """Name, and settings in the type of their defaults."""
    assert parse_fault("api-429:count=2.5,path=all") == (
        "api-429",
        {"retry_after": 1.0, "count": 2.5, "per_second": 0.0, "path": "all"},
    )
    assert parse_fault("role-missing") == ("role-missing", {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("no-such", "api-down"),
        ("latency:sm=5", "it has: ms"),
        ("latency:ms=fast", "not a number"),
        ("latency:ms", "key=value"),
    ],
)
def test_a_mistake_is_told_what_there_is(text, said):
    """Names and settings that do not exist are answered with those that do."""
    with pytest.raises(FaultError, match=said):
        parse_fault(text)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_can_be_set_and_cleared(name):
    """And says in a line what it does."""
    faults = FaultRegistry()

    faults.set(name, {})
    faults.clear(name)

    assert faults.list_active() == {}
    assert FAULTS[name].summary


def test_clearing_all():
    """One word brings good health."""
    faults = FaultRegistry()
    faults.set("latency", {"ms": 5})
    faults.clear()

    assert faults.get_number("latency", "ms") == 0.0


def test_clearing_what_does_not_exist_is_a_mistake():
    """A misspelled name would leave the fault on."""
    with pytest.raises(FaultError):
        FaultRegistry().clear("no-such")


def test_a_count_of_refusals_is_used_up():
    """So that a retry succeeds."""
    faults = FaultRegistry()
    faults.set("refuse-logins", {"count": 2})

    refused = [faults.refuse_login("me", 0) is not None for _ in range(3)]

    assert refused == [True, True, False]


def test_only_old_tokens_are_refused():
    """A key that was changed refuses what it signed before."""
    faults = FaultRegistry()
    faults.set("refuse-logins", {"before": 100})

    assert faults.refuse_login("me", 99) is not None
    assert faults.refuse_login("me", 100) is None


@pytest.mark.parametrize("name", MESSAGES)
def test_every_message_says_something(name):
    """And the engine knows what it means."""
    refusal = MESSAGES[name]("me")
    said = Exception(f"{refusal.severity}:  {refusal.message}")

    is_known = classify(said, Source.SERVER).id != "unexplained"
    assert is_known == (name not in ("german", "unknown"))


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("refuse-logins:message=loud", "jwt, expired"),
        ("api-malformed:shape=round", "html, text"),
        ("api-slow:path=none", "credentials, all"),
        ("cut:which=some", "all, idle, busy"),
    ],
)
def test_an_unknown_choice_is_a_mistake(text, known):
    """The known ones are listed, before anybody meets the fault."""
    with pytest.raises(FaultError, match=known):
        parse_fault(text)
