"""The table of faults, parsing of their options, and the registry of active faults."""

import pytest

from django_lakebase.failures.classify import classify
from django_lakebase.failures.failure import Source
from django_lakebase.local.faults import (
    FAULTS,
    FaultError,
    FaultRegistry,
    parse_fault,
)
from django_lakebase.local.login_errors import MESSAGES


def test_parsed_options_have_the_type_of_their_defaults():
    assert parse_fault("api-429:count=2.5,scope=all") == (
        "api-429",
        {"retry_after": 1.0, "count": 2.5, "allowed_per_second": 0.0, "scope": "all"},
    )
    assert parse_fault("role-missing") == ("role-missing", {})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no-such", "api-down"),
        ("latency:sm=5", "Its options: ms"),
        ("latency:ms=fast", "not a number"),
        ("latency:ms", "key=value"),
    ],
)
def test_invalid_fault_is_rejected_with_a_list_of_valid_names(text, message):
    with pytest.raises(FaultError, match=message):
        parse_fault(text)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_has_a_summary_and_can_be_set_and_cleared(name):
    faults = FaultRegistry()

    faults.set(name, {})
    faults.clear(name)

    assert faults.list_active() == {}
    assert FAULTS[name].summary


def test_clear_without_a_name_clears_all_faults():
    faults = FaultRegistry()
    faults.set("latency", {"ms": 5})
    faults.clear()

    assert faults.get_number("latency", "ms") == 0.0


def test_clearing_an_unknown_fault_is_rejected():
    """If it were ignored, a misspelled name would leave the fault on."""
    with pytest.raises(FaultError):
        FaultRegistry().clear("no-such")


def test_logins_succeed_after_the_counted_rejections():
    faults = FaultRegistry()
    faults.set("reject-logins", {"count": 2})

    rejected = [faults.reject_login("me", 0) is not None for _ in range(3)]

    assert rejected == [True, True, False]


def test_option_before_rejects_only_tokens_issued_earlier():
    """The option simulates a signing key that was replaced."""
    faults = FaultRegistry()
    faults.set("reject-logins", {"issued_before": 100})

    assert faults.reject_login("me", 99) is not None
    assert faults.reject_login("me", 100) is None


@pytest.mark.parametrize("name", MESSAGES)
def test_engine_recognizes_every_rejection_message_except_two(name):
    """The German message and the one called "unknown" are deliberate exceptions."""
    rejection = MESSAGES[name]("me")
    error = Exception(f"{rejection.severity}:  {rejection.message}")

    is_known = classify(error, Source.SERVER).id != "unexplained"
    assert is_known == (name not in ("german", "unknown"))


@pytest.mark.parametrize(
    ("text", "known"),
    [
        ("reject-logins:message=loud", "jwt, expired"),
        ("api-malformed:body=round", "html, text"),
        ("api-slow:scope=none", "credentials, all"),
        ("reset-connections:state=some", "all, idle, busy"),
    ],
)
def test_invalid_choice_is_rejected_with_the_valid_choices(text, known):
    with pytest.raises(FaultError, match=known):
        parse_fault(text)
