"""django_lakebase.contrib.databricks_apps: settings, checks and documentation."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import global_settings
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory

import django_lakebase
from django_lakebase.contrib.databricks_apps import (
    ProxySettings,
    checks,
    conf,
    get_proxy_settings,
    is_databricks_app,
)
from django_lakebase.contrib.databricks_apps.middleware import ForwardedUserMiddleware

TOP = Path(django_lakebase.__file__).parent.parent
PAGE = (TOP / checks.CHECKS_PAGE).read_text()
PACKAGE = "django_lakebase.contrib.databricks_apps"
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    f"{PACKAGE}.middleware.ForwardedUserMiddleware",
]
APP_URL = "https://shop-123.aws.databricksapps.com"


@pytest.fixture(autouse=True)
def correct_settings(settings, workspace_environment):
    """Configure the sign-in, outside of the platform."""
    settings.MIDDLEWARE = MIDDLEWARE
    settings.AUTHENTICATION_BACKENDS = [f"{PACKAGE}.backends.ForwardedUserBackend"]
    settings.DATABRICKS_APPS = {}


@pytest.fixture
def platform(monkeypatch):
    """Set the variables of the platform."""
    monkeypatch.setenv("DATABRICKS_APP_NAME", "shop")
    monkeypatch.setenv("DATABRICKS_APP_PORT", "8000")
    monkeypatch.setenv("DATABRICKS_APP_URL", APP_URL)


def ids():
    """Return the ids of the findings, without their prefix."""
    return [str(f.id).removeprefix("databricks_apps.") for f in checks.check_sign_in()]


def get_identity(**headers):
    """Return the name that the middleware reads from *headers*."""
    request = RequestFactory().get("/", headers=headers)
    return ForwardedUserMiddleware(lambda _: None).get_identity(request)


# The proxy's settings.


def test_platform_has_the_settings_of_its_proxy(platform):
    assert get_proxy_settings() == {
        "ALLOWED_HOSTS": ["shop-123.aws.databricksapps.com"],
        "CSRF_TRUSTED_ORIGINS": [APP_URL],
        "CSRF_COOKIE_SECURE": True,
        "SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https"),
        "SESSION_COOKIE_SECURE": True,
        "USE_X_FORWARDED_HOST": True,
    }


def test_other_machines_have_the_defaults_of_django():
    """So that runserver works over http with DEBUG."""
    names = ProxySettings.__annotations__

    assert get_proxy_settings() == {n: getattr(global_settings, n) for n in names}


@pytest.mark.parametrize(
    ("url", "host", "origins"),
    [
        (f"{APP_URL}/", "shop-123.aws.databricksapps.com", [APP_URL]),
        (APP_URL.upper(), "shop-123.aws.databricksapps.com", [APP_URL]),
        (APP_URL[8:], "shop-123.aws.databricksapps.com", [APP_URL]),
        ("http://127.0.0.1:8123", "127.0.0.1", ["http://127.0.0.1:8123"]),
    ],
)
def test_url_of_the_app_names_host_and_origin(
    platform, monkeypatch, url, host, origins
):
    monkeypatch.setenv("DATABRICKS_APP_URL", url)

    found = get_proxy_settings()

    assert (found["ALLOWED_HOSTS"], found["CSRF_TRUSTED_ORIGINS"]) == ([host], origins)


def test_proxy_without_tls_gets_cookies_that_a_browser_sends(platform, monkeypatch):
    """The local Lakebase has such a proxy, which presents itself as https."""
    monkeypatch.setenv("DATABRICKS_APP_URL", "http://127.0.0.1:8123")

    found = get_proxy_settings()

    assert not found["SESSION_COOKIE_SECURE"]
    assert not found["CSRF_COOKIE_SECURE"]
    assert found["SECURE_PROXY_SSL_HEADER"]


def test_platform_without_the_url_trusts_no_other_origin(platform, monkeypatch):
    """Apps of other customers have the same domain."""
    monkeypatch.delenv("DATABRICKS_APP_URL")

    found = get_proxy_settings()

    assert found["ALLOWED_HOSTS"] == [".databricksapps.com"]
    assert found["CSRF_TRUSTED_ORIGINS"] == []
    assert found["SESSION_COOKIE_SECURE"]


@pytest.mark.parametrize("missing", ["DATABRICKS_APP_NAME", "DATABRICKS_APP_PORT"])
@pytest.mark.parametrize("value", ["", None])
def test_both_variables_make_a_databricks_app(platform, monkeypatch, missing, value):
    assert is_databricks_app()

    if value is None:
        monkeypatch.delenv(missing)
    else:
        monkeypatch.setenv(missing, value)

    assert not is_databricks_app()


def test_settings_can_import_the_package_without_django():
    code = f"import sys, {PACKAGE}; print([m for m in sys.modules if 'django.' in m])"
    run = [sys.executable, "-c", code]

    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout

    assert {m.partition(".")[0] for m in re.findall(r"'(.+?)'", out)} <= {
        "django_lakebase"
    }


# The setting DATABRICKS_APPS.


@pytest.mark.parametrize(
    "users", ["Ada@x.com, , b@x.com ", ["b@x.com", " ADA@x.com", ""]]
)
def test_users_are_a_list_or_separated_by_commas(settings, users):
    settings.DATABRICKS_APPS = {"SUPERUSERS": users}

    assert conf.get_apps_settings().superusers == {"ada@x.com", "b@x.com"}


@pytest.mark.parametrize(
    ("value", "decides"),
    [
        ({}, False),
        ({"SUPERUSERS": None, "STAFF_GROUP": "", "DEVELOPMENT_USER": "a@x"}, False),
        ({"SUPERUSERS": ""}, True),
        ({"STAFF": []}, True),
        ({"STAFF_GROUP": "editors"}, True),
    ],
)
def test_setting_decides_rights_if_it_names_any(settings, value, decides):
    settings.DATABRICKS_APPS = value

    assert conf.get_apps_settings().decides_rights is decides


INVALID = [
    (["ada@x.com"], "is a list, but must be a dict"),
    ({"SUPERUSER": "ada@x.com"}, "unknown key 'SUPERUSER'. The keys are SUPERUSERS"),
    ({"SUPERUSERS": True}, 'DATABRICKS_APPS["SUPERUSERS"] is True'),
    ({"STAFF": [1]}, 'DATABRICKS_APPS["STAFF"] is [1]'),
    ({"STAFF": {"ada@x.com": True}}, 'DATABRICKS_APPS["STAFF"] is {'),
    ({"STAFF_GROUP": ["editors"]}, "must be a string"),
    ({"DEVELOPMENT_USER": 7}, 'DATABRICKS_APPS["DEVELOPMENT_USER"] is 7'),
]


@pytest.mark.parametrize(("value", "text"), INVALID, ids=[text for _, text in INVALID])
def test_invalid_setting_is_an_error_of_the_check_and_of_the_middleware(
    settings, platform, value, text
):
    """E001 has the text with which the process would not start."""
    settings.DATABRICKS_APPS = value

    [finding] = checks.check_sign_in()

    assert finding.id == "databricks_apps.E001"
    assert text in finding.msg
    with pytest.raises(ImproperlyConfigured, match=re.escape(text)):
        ForwardedUserMiddleware(lambda _: None)


# Checks.


def test_correct_settings_on_the_platform_have_no_finding(platform):
    assert checks.check_sign_in() == []


def test_development_user_with_debug_has_no_finding(settings):
    settings.DEBUG = True
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": "ada@example.com"}

    assert checks.check_sign_in() == []


@pytest.mark.parametrize(
    "middleware",
    [MIDDLEWARE[:2], MIDDLEWARE[::-1], MIDDLEWARE[::2], ["no.such.Middleware"]],
)
def test_middleware_must_follow_that_of_django(settings, platform, middleware):
    settings.MIDDLEWARE = middleware

    assert ids() == ["E002"]


@pytest.mark.parametrize(
    "backends",
    [
        ["django.contrib.auth.backends.ModelBackend"],
        [
            "django.contrib.auth.backends.RemoteUserBackend",
            f"{PACKAGE}.backends.ForwardedUserBackend",
        ],
    ],
)
def test_backend_must_answer_the_middleware(settings, platform, backends):
    """E003: without it, no user is signed in, or by rules of another backend."""
    settings.AUTHENTICATION_BACKENDS = backends

    assert ids() == ["E003"]


def test_model_backend_may_be_first(settings, platform):
    """It returns no user for a name without a password."""
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        f"{PACKAGE}.backends.ForwardedUserBackend",
    ]

    assert checks.check_sign_in() == []


@pytest.mark.parametrize("debug", [False, True])
def test_ignored_headers_are_a_warning_that_names_the_variables(
    settings, monkeypatch, debug
):
    """W001, also for a developer without a development user."""
    settings.DEBUG = debug
    monkeypatch.setenv("DATABRICKS_APP_NAME", "shop")

    [finding] = checks.check_sign_in()

    assert finding.id == "databricks_apps.W001"
    assert "DATABRICKS_APP_PORT is not set" in finding.msg
    assert "DATABRICKS_APP_NAME" not in finding.msg


def test_development_user_without_debug_is_a_warning(settings):
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": "ada@example.com"}

    assert ids() == ["W001", "W002"]


def test_development_user_is_no_finding_on_the_platform(settings, platform):
    """It has no effect there, and one file of settings serves both."""
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": "ada@example.com"}

    assert checks.check_sign_in() == []


def test_installed_app_registers_the_checks():
    code = (
        "import django; from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['django.contrib.auth', "
        f"'django.contrib.contenttypes', '{PACKAGE}'])\n"
        "django.setup()\n"
        "from django.core.management import call_command; call_command('check')"
    )

    run = subprocess.run(
        [sys.executable, "-c", code], check=False, capture_output=True, text=True
    )

    assert re.findall(r"\(databricks_apps\.(\w+)\)", run.stderr) == [
        "E002",
        "E003",
        "W001",
    ]


# The name of the user.


def test_email_names_the_user_in_lower_case(platform):
    headers = {"X-Forwarded-Email": " Ada@Example.com ", "X-Forwarded-User": "1@2"}

    assert get_identity(**headers) == "ada@example.com"


def test_principal_without_an_email_is_named_by_its_id(platform):
    assert get_identity(**{"X-Forwarded-User": "12@34"}) == "12@34"


def test_display_name_never_names_the_user(platform):
    """Users choose their display name: it may be the e-mail address of an admin."""
    assert get_identity(**{"X-Forwarded-Preferred-Username": "boss@example.com"}) == ""


@pytest.mark.parametrize(
    "value",
    ["boss@example.com,ada@example.com", "a b@x.com", "\u212aim@x.com", "a\x00"],
)
def test_ambiguous_name_is_ignored(platform, all_logs, value):
    """A server joins a forged header and the proxy's with a comma."""
    request = RequestFactory().get("/", HTTP_X_FORWARDED_EMAIL=value)

    assert ForwardedUserMiddleware(lambda _: None).get_identity(request) == ""
    assert any("was not signed in" in line for line in all_logs)
    assert value not in "".join(all_logs)


def test_headers_are_ignored_outside_of_the_platform():
    assert get_identity(**{"X-Forwarded-Email": "ada@example.com"}) == ""


@pytest.mark.parametrize(
    ("debug", "expected"), [(True, "dev@example.com"), (False, "")]
)
def test_development_user_needs_debug(settings, debug, expected):
    settings.DEBUG = debug
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": "Dev@example.com"}

    assert get_identity(**{"X-Forwarded-Email": "ada@example.com"}) == expected


def test_development_user_is_ignored_on_the_platform(settings, platform):
    settings.DEBUG = True
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": "dev@example.com"}

    assert get_identity() == ""


# The documentation.


def test_checks_are_the_sections_of_the_page():
    source = Path(checks.__file__).read_text()
    found = sorted(set(re.findall(r'"(databricks_apps\.[EW]\d+)"', source)))
    anchors = [f"({i.lower().replace('.', '-').replace('_', '-')})=" for i in found]

    assert re.findall(r"\n### (databricks_apps\.\w+)\n", PAGE) == found
    assert [anchor for anchor in anchors if f"\n{anchor}\n### " not in PAGE] == []


def test_bundle_of_the_template_is_the_one_in_the_guide():
    """Apart from the comment, and the branch that the reader sets."""
    folder = Path(checks.__file__).parent / "project_template"
    template = (folder / "databricks.yml").read_text()
    _, _, bundle = template.replace("{{ project_name }}", "mysite").partition("\n")
    bundle = bundle.replace("projects/<project>/", "projects/mysite/")
    guide = Path(__file__).parents[3] / "docs" / "howto" / "databricks-apps.md"

    assert f"```yaml\n{bundle}```" in guide.read_text()


@pytest.mark.parametrize("name", [*conf.KEYS, *ProxySettings.__annotations__])
def test_setting_is_documented(name):
    assert f"| `{name}` |" in PAGE
