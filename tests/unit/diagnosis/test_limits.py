"""The expiry of client secrets, as the step ``limits`` reports it."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from django_lakebase.auth import workspace
from django_lakebase.auth.workspace import Workspace
from django_lakebase.config.target import Login
from django_lakebase.diagnosis.limits import describe_secrets

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)


def after(*days):
    return tuple(NOW + timedelta(days=number) for number in days)


@pytest.mark.parametrize(
    ("times", "said", "has_warning"),
    [
        (None, "", False),
        ((), "does not expire", False),
        (after(30), "2026-12-28 (days left: 30)", False),
        (after(29), "2026-12-27 (days left: 29)", True),
        (after(3, 700), "the first of 2 client secrets", True),
    ],
)
def test_only_a_secret_that_expires_soon_is_a_warning(times, said, has_warning):
    detail, findings = describe_secrets(times, NOW, "SECRET")

    assert said in detail
    assert [finding.id for finding in findings] == (
        ["client-secret-expires"] if has_warning else []
    )


def test_hint_admits_that_the_secret_in_use_is_unknown():
    _, [one] = describe_secrets(after(3), NOW, "SECRET")
    _, [several] = describe_secrets(after(3, 700), NOW, "SECRET")

    assert "does not tell" not in one.hint
    assert "does not tell" in several.hint
    assert "set SECRET to it" in several.hint


def client_with_secrets():
    """Return a client, as a project's own function does in OPTIONS["workspace"]."""
    secrets = [
        SimpleNamespace(expire_time="2028-11-28T12:00:00Z", status="ACTIVE"),
        SimpleNamespace(expire_time="2027-11-28T12:00:00.123456789Z", status=None),
        SimpleNamespace(expire_time="2027-01-01T12:00:00Z", status="DISABLED"),
        SimpleNamespace(expire_time="2026-11-27T12:00:00Z", status="ACTIVE"),
        SimpleNamespace(expire_time=None, status="ACTIVE"),
    ]
    return SimpleNamespace(
        config=SimpleNamespace(authenticate=dict, auth_type="oauth-m2m"),
        postgres=None,
        current_user=SimpleNamespace(me=lambda: SimpleNamespace(id="7")),
        service_principal_secrets_proxy=SimpleNamespace(
            list=lambda identity: secrets if identity == "7" else []
        ),
    )


def test_expired_and_inactive_secrets_do_not_count(monkeypatch):
    monkeypatch.setattr(workspace, "utc_now", lambda: NOW)
    login = Login("key", "name", path=f"{__name__}.client_with_secrets")
    monkeypatch.setattr(
        "django_lakebase.auth.sdk.import_string", lambda _: client_with_secrets
    )

    times = Workspace(login).secrets_expire_at()

    assert times is not None
    assert [time.year for time in times] == [2027, 2028]


@pytest.mark.parametrize(
    ("listed", "times"),
    [
        ([], None),
        ([("2026-11-27T12:00:00Z", "ACTIVE")], None),
        ([("2027-11-27T12:00:00Z", "DISABLED")], None),
        ([(None, "ACTIVE")], ()),
    ],
)
def test_secret_that_is_not_listed_is_not_taken_for_one_that_does_not_expire(
    monkeypatch, listed, times
):
    client = client_with_secrets()
    secrets = [SimpleNamespace(expire_time=at, status=status) for at, status in listed]
    client.service_principal_secrets_proxy.list = lambda _: secrets
    monkeypatch.setattr(workspace, "_clients", {})
    monkeypatch.setattr(workspace, "utc_now", lambda: NOW)
    monkeypatch.setattr(
        "django_lakebase.auth.sdk.import_string", lambda _: lambda: client
    )

    login = Login("key", "name", path=f"{__name__}.client_with_secrets")

    assert Workspace(login).secrets_expire_at() == times
