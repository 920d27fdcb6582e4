"""Sign-in from the headers of the proxy of Databricks Apps."""

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import AsyncClient, Client, RequestFactory, override_settings

from django_lakebase.contrib.databricks_apps import get_proxy_settings
from django_lakebase.contrib.databricks_apps.backends import ForwardedUserBackend
from django_lakebase.contrib.databricks_apps.test import AppClient, AsyncAppClient
from tests.projects.app.models import Member

PACKAGE = "django_lakebase.contrib.databricks_apps"
ADA, BOB = "ada@example.com", "bob@example.com"
NO_USER = ""

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def sign_in_settings(settings, local):
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        f"{PACKAGE}.middleware.ForwardedUserMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    settings.AUTHENTICATION_BACKENDS = [
        "django.contrib.auth.backends.ModelBackend",
        f"{PACKAGE}.backends.ForwardedUserBackend",
    ]


@pytest.fixture
def client():
    return AppClient()


@pytest.fixture
def platform(monkeypatch):
    """Set the variables of the platform for Django's own client."""
    monkeypatch.setenv("DATABRICKS_APP_NAME", "shop")
    monkeypatch.setenv("DATABRICKS_APP_PORT", "8000")


def user_of(client, **headers):
    """Return the name of the user that a view sees."""
    return client.get("/user/", headers=headers).content.decode()


# Who is signed in.


def test_unknown_user_is_created_with_email_and_name_but_no_password(client):
    client.sign_in(ADA, name="Ada José  Lovelace")

    assert user_of(client) == ADA
    user = User.objects.get()
    assert (user.username, user.email) == (ADA, ADA)
    assert (user.first_name, user.last_name) == ("Ada", "José  Lovelace")
    assert not user.has_usable_password()
    assert not user.is_staff
    assert not user.is_superuser


def test_first_visitor_gets_no_rights(client):
    client.sign_in(ADA)

    assert client.get("/admin/").status_code == 302
    assert not User.objects.filter(is_superuser=True).exists()


def test_next_request_keeps_user_and_session(client):
    client.sign_in(ADA)

    assert user_of(client) == user_of(client) == ADA
    assert client.session["visits"] == 2
    assert Session.objects.count() == 1


def test_other_user_in_the_header_replaces_the_user_and_the_session(client):
    """Data of the first user's session must not reach the second."""
    client.sign_in(ADA)
    user_of(client)
    first_session = client.session.session_key
    first_token = client.cookies["csrftoken"].value
    client.sign_in(BOB)

    assert user_of(client) == BOB
    assert client.session["visits"] == 1
    assert not Session.objects.filter(session_key=first_session).exists()
    assert client.cookies["csrftoken"].value != first_token


def test_missing_header_logs_out(client):
    client.sign_in(ADA)
    user_of(client)
    client.sign_out()

    assert user_of(client) == NO_USER
    assert "_auth_user_id" not in client.session


def test_missing_header_ends_a_login_with_a_password(client, platform):
    """Django's own class would keep it."""
    User.objects.create_user("admin", password="correct horse")
    assert client.login(username="admin", password="correct horse")

    assert user_of(client) == NO_USER


def test_login_with_a_password_does_not_survive_the_header(client):
    User.objects.create_superuser("admin", password="correct horse")
    assert client.login(username="admin", password="correct horse")
    client.sign_in(ADA)

    assert user_of(client) == ADA


def test_inactive_user_is_not_signed_in(client):
    User.objects.create_user(ADA, is_active=False)
    client.sign_in(ADA)

    assert user_of(client) == NO_USER


def test_deactivated_user_is_logged_out_at_the_next_request(client):
    client.sign_in(ADA)
    user_of(client)
    User.objects.update(is_active=False)

    assert user_of(client) == NO_USER


def test_inactive_user_in_the_header_ends_the_login_of_another(client):
    """Also a login with a password."""
    User.objects.create_superuser("admin", password="correct horse")
    User.objects.create_user(BOB, is_active=False)
    assert client.login(username="admin", password="correct horse")
    client.sign_in(BOB)

    assert user_of(client) == NO_USER


def test_name_in_other_case_signs_in_the_same_user(client):
    """A user whom Databricks' template created keeps their name and their session."""
    User.objects.create_user("Ada@Example.com")
    client.sign_in("ADA@example.com")

    assert user_of(client) == user_of(client) == "Ada@Example.com"
    assert User.objects.count() == 1
    assert client.session["visits"] == 2


def test_user_in_lower_case_wins_over_other_spellings(client):
    for name in ("ADA@example.com", ADA, "Ada@example.com"):
        User.objects.create_user(name)
    client.sign_in("Ada@example.com")

    assert user_of(client) == ADA


@pytest.mark.parametrize(
    ("letter", "name"),
    [
        ("\u0131", "ix@example.com"),
        ("\u017f", "sx@example.com"),
        ("\u212a", "kx@example.com"),
    ],
)
def test_letter_that_only_another_case_turns_into_ascii_is_another_user(
    client, letter, name
):
    """create() stores the letter, which create_user() may replace."""
    User.objects.create(username=f"{letter}x@example.com")
    client.sign_in(name)

    assert user_of(client) == name
    assert User.objects.count() == 2


def test_session_of_a_user_who_is_only_similar_in_lower_case_ends(client):
    """In Python, too, the Kelvin sign becomes a k."""
    user = User.objects.create(username="\u212ax@example.com")
    client.force_login(user, backend="django.contrib.auth.backends.ModelBackend")
    client.sign_in("kx@example.com")

    assert user_of(client) == "kx@example.com"


def test_user_without_a_display_name_gets_no_name(client):
    """The proxy sends the e-mail address instead."""
    client.sign_in(ADA)
    user_of(client)

    assert User.objects.get().first_name == ""


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Jos\xe9", "José"),
        ("José".encode().decode("latin-1"), "José"),
        ("x" * 200, "x" * 150),
    ],
)
def test_display_name_in_any_encoding_and_length_is_stored(platform, header, expected):
    request = RequestFactory().get("/", HTTP_X_FORWARDED_PREFERRED_USERNAME=header)

    assert ForwardedUserBackend().authenticate(request, ADA).first_name == expected


def test_principal_without_an_email_gets_no_email_address(client, platform):
    assert user_of(Client(), **{"X-Forwarded-User": "12@34"}) == "12@34"
    assert User.objects.get().email == ""


def test_name_that_is_too_long_is_not_signed_in(client, all_logs):
    """PostgreSQL would reject it, and a shortened name may be another user's."""
    client.sign_in("a" * 150 + "@example.com")

    assert user_of(client) == NO_USER
    assert not User.objects.exists()
    assert any("longer than the 150 characters" in line for line in all_logs)


def test_subclass_can_reject_unknown_users(client, settings):
    settings.AUTHENTICATION_BACKENDS = [f"{__name__}.KnownUsersBackend"]
    User.objects.create_user(BOB)
    client.sign_in(ADA)
    assert user_of(client) == NO_USER

    client.sign_in(BOB)
    assert user_of(client) == BOB


class KnownUsersBackend(ForwardedUserBackend):
    """Signs in only users that exist."""

    create_unknown_user = False


def test_custom_user_model_is_named_by_its_email(client):
    with override_settings(AUTH_USER_MODEL="app.Member"):
        client.sign_in(ADA, name="Ada Lovelace")

        assert user_of(client) == ADA
        assert Member.objects.get().email == ADA
        client.sign_in("b" * 30 + "@example.com")
        assert user_of(client) == NO_USER


def test_user_with_the_email_address_of_another_is_not_created(client, all_logs):
    """In models where it is unique; a half-created user could sign in later."""
    User.objects.create_user("ada", email=ADA)
    with connection.cursor() as cursor:
        cursor.execute("CREATE UNIQUE INDEX ON auth_user (email)")
    client.sign_in(ADA)

    assert [user_of(client) for _ in range(2)] == [NO_USER, NO_USER]
    assert User.objects.count() == 1
    assert any("rejected the new user (UniqueViolation)" in line for line in all_logs)


def test_group_of_a_user_model_without_groups_is_ignored(client, settings):
    settings.DATABRICKS_APPS = {"STAFF_GROUP": "Editors"}
    with override_settings(AUTH_USER_MODEL="app.Member"):
        client.sign_in(ADA)

        assert user_of(client) == ADA


# When headers are trusted.


def test_headers_are_ignored_outside_of_the_platform():
    assert user_of(Client(), **{"X-Forwarded-Email": ADA}) == NO_USER
    assert not User.objects.exists()


def test_session_of_the_proxy_ends_outside_of_the_platform(client):
    client.sign_in(ADA)
    user_of(client)
    outside = Client()
    outside.cookies = client.cookies

    assert user_of(outside) == NO_USER


def test_login_with_a_password_is_kept_outside_of_the_platform():
    User.objects.create_user("admin", password="correct horse")
    client = Client()
    assert client.login(username="admin", password="correct horse")

    assert user_of(client) == "admin"


@pytest.mark.parametrize(
    "name", ["Databricks-Apps-User", "Http-Databricks-Apps-User", "Remote-User"]
)
@pytest.mark.parametrize("path", ["/user/", "/async-user/"])
def test_names_of_the_middleware_are_no_headers(platform, name, path):
    """In async mode, Django 5.2 reads a name that a client can send."""
    headers = {name: ADA}

    assert Client().get(path, headers=headers).content == b""
    assert async_to_sync(AsyncClient().get)(path, headers=headers).content == b""


def test_development_user_is_signed_in_with_debug(settings):
    settings.DEBUG = True
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": ADA}

    assert user_of(Client(), **{"X-Forwarded-Email": BOB}) == ADA


def test_inactive_development_user_ends_a_login_with_a_password(settings):
    """The rights of the development user must not reach the other user."""
    settings.DEBUG = True
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": ADA, "SUPERUSERS": ADA}
    User.objects.create_user(ADA, is_active=False)
    User.objects.create_user(BOB, password="correct horse")
    client = Client()
    assert client.login(username=BOB, password="correct horse")

    assert user_of(client) == NO_USER
    assert rights_of(BOB) == (False, False)


def test_development_user_is_not_signed_in_without_debug(settings):
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": ADA}

    assert user_of(Client()) == NO_USER


def test_development_user_is_not_signed_in_on_the_platform(settings, client):
    settings.DEBUG = True
    settings.DATABRICKS_APPS = {"DEVELOPMENT_USER": ADA}

    assert user_of(client) == NO_USER


# Rights.


def rights_of(name=ADA):
    user = User.objects.get(username=name)
    return user.is_superuser, user.is_staff


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"SUPERUSERS": ["Ada@Example.com"]}, (True, True)),
        ({"STAFF": f"{BOB},{ADA}"}, (False, True)),
        ({"STAFF_GROUP": "editors"}, (False, True)),
        ({"SUPERUSERS": [BOB], "STAFF_GROUP": "others"}, (False, False)),
        ({"STAFF": []}, (False, False)),
    ],
)
def test_lists_and_group_decide_rights(client, settings, value, expected):
    User.objects.create_user(ADA).groups.add(Group.objects.create(name="editors"))
    settings.DATABRICKS_APPS = value
    client.sign_in(ADA)
    user_of(client)

    assert rights_of() == expected


def test_superuser_enters_the_admin_in_their_first_request(client, settings):
    settings.DATABRICKS_APPS = {"SUPERUSERS": ADA}
    client.sign_in(ADA)

    assert client.get("/admin/app/note/").status_code == 200


def test_user_who_left_the_list_loses_rights_at_the_next_request(
    client, settings, all_logs
):
    """Sessions survive the deployment that changes the list."""
    settings.DATABRICKS_APPS = {"SUPERUSERS": ADA}
    client.sign_in(ADA)
    assert client.get("/admin/").status_code == 200
    settings.DATABRICKS_APPS = {"SUPERUSERS": ""}
    redeployed = AppClient()
    redeployed.cookies = client.cookies
    redeployed.sign_in(ADA)

    assert redeployed.get("/admin/").status_code == 302
    assert rights_of() == (False, False)
    [line] = [line for line in all_logs if "is_superuser" in line and "False" in line]
    assert ADA not in line


def test_rights_in_the_database_stay_if_the_setting_decides_none(client):
    User.objects.create_superuser(ADA)
    client.sign_in(ADA)
    user_of(client)

    assert rights_of() == (True, True)


def test_user_of_a_login_with_a_password_loses_rights_too(client, settings):
    """The header names the same user, so the session is kept."""
    settings.DATABRICKS_APPS = {"SUPERUSERS": [BOB]}
    User.objects.create_superuser(ADA, password="correct horse")
    assert client.login(username=ADA, password="correct horse")
    client.sign_in(ADA)
    user_of(client)

    assert rights_of() == (False, False)


def test_unchanged_rights_cost_no_query(client, settings, django_assert_num_queries):
    """Only the session, the user and the view's data are read."""
    settings.DATABRICKS_APPS = {"SUPERUSERS": ADA, "STAFF": BOB}
    client.sign_in(ADA)
    client.get("/count/")

    with django_assert_num_queries(3):
        client.get("/count/")


def test_model_without_rights_is_left_alone(client, settings):
    settings.DATABRICKS_APPS = {"SUPERUSERS": ADA}
    with override_settings(AUTH_USER_MODEL="app.Member"):
        client.sign_in(ADA)

        assert user_of(client) == ADA


# Forms, tokens, async.


def test_forged_header_of_a_test_is_replaced_as_by_the_proxy(client):
    forged = {"X-Forwarded-Email": BOB}
    client.sign_in(ADA)

    async def visit():
        client = AsyncAppClient()
        client.sign_in(ADA)
        response = await client.get("/async-user/", headers=forged)
        return response.content.decode()

    assert user_of(client, **forged) == ADA
    assert async_to_sync(visit)() == ADA


def test_form_is_accepted_from_the_page_that_signed_the_user_in(settings):
    settings.DATABRICKS_APPS = {"SUPERUSERS": ADA}
    client = AppClient(enforce_csrf_checks=True)
    client.sign_in(ADA)
    page = client.get("/admin/app/note/add/").content.decode()
    token = page.partition('csrfmiddlewaretoken" value="')[2].partition('"')[0]
    form = {"text": "x", "csrfmiddlewaretoken": token}

    assert client.post("/admin/app/note/add/", form).status_code == 302


PLATFORM_URL = "https://shop-123.aws.databricksapps.com"
LOCAL_URL = "http://127.0.0.1:8123"


@pytest.mark.parametrize(
    ("app_url", "proto", "origin", "expected"),
    [
        (PLATFORM_URL, "https", PLATFORM_URL, 200),
        (PLATFORM_URL, None, PLATFORM_URL, 200),
        (PLATFORM_URL, "https", "https://evil-666.aws.databricksapps.com", 403),
        # The proxy of the local Lakebase presents itself as https.
        (LOCAL_URL, "https", "https://127.0.0.1:8123", 200),
        (LOCAL_URL, "https", "https://127.0.0.1:9999", 403),
    ],
)
def test_form_is_accepted_only_from_the_origin_of_the_app(
    settings, platform, monkeypatch, app_url, proto, origin, expected
):
    """The app itself may be reached by an address that no browser knows."""
    monkeypatch.setenv("DATABRICKS_APP_URL", app_url)
    for name, value in get_proxy_settings().items():
        setattr(settings, name, value)
    client = AppClient(enforce_csrf_checks=True)
    client.sign_in(ADA)
    headers = {
        "Host": "10.1.2.3:8000",
        "Origin": origin,
        "X-Forwarded-Host": app_url.partition("://")[2],
    }
    headers |= {"X-Forwarded-Proto": proto} if proto else {}
    page = client.get("/user/", headers=headers)
    form = {"csrfmiddlewaretoken": page.cookies["csrftoken"].value}

    assert page.status_code == 200
    assert client.post("/user/", form, headers=headers).status_code == expected


@pytest.mark.parametrize("is_first_request", [False, True])
def test_form_of_the_previous_user_is_rejected(is_first_request):
    """Also if it is sent with the request that switches the user."""
    client = AppClient(enforce_csrf_checks=True)
    client.sign_in(ADA)
    user_of(client)
    token = client.cookies["csrftoken"].value
    client.sign_in(BOB)
    if not is_first_request:
        user_of(client)

    assert client.post("/user/", {"csrfmiddlewaretoken": token}).status_code == 403


def test_form_of_the_previous_user_is_rejected_in_an_async_request():
    async def visit():
        client = AsyncAppClient(enforce_csrf_checks=True)
        client.sign_in(ADA)
        await client.get("/async-user/")
        token = client.cookies["csrftoken"].value
        client.sign_in(BOB)
        return await client.post("/async-user/", {"csrfmiddlewaretoken": token})

    assert async_to_sync(visit)().status_code == 403


def test_form_is_accepted_after_the_session_has_ended():
    """The user is the same, so their input must not be lost."""
    client = AppClient(enforce_csrf_checks=True)
    client.sign_in(ADA)
    user_of(client)
    token = client.cookies["csrftoken"].value
    Session.objects.all().delete()

    assert client.post("/user/", {"csrfmiddlewaretoken": token}).status_code == 200


def test_access_token_of_the_user_is_neither_stored_nor_logged(client, all_logs):
    client.sign_in(ADA)
    client.get("/user/", headers={"X-Forwarded-Access-Token": "secret-of-ada"})

    stored = [session.get_decoded() for session in Session.objects.all()]
    assert stored
    assert "secret-of-ada" not in f"{stored} {all_logs} {list(User.objects.values())}"


def test_async_requests_sign_in_switch_and_log_out(settings):
    settings.DATABRICKS_APPS = {"SUPERUSERS": BOB}
    User.objects.create_user("Ada@Example.com")
    found = []

    async def visit():
        client = AsyncAppClient()
        for name in (ADA, ADA, BOB):
            client.sign_in(name, name="José Núñez")
            found.append((await client.get("/async-user/")).content.decode())
        client.sign_out()
        found.append((await client.get("/async-user/")).content.decode())

    async_to_sync(visit)()

    assert found == ["Ada@Example.com", "Ada@Example.com", BOB, NO_USER]
    assert rights_of(BOB) == (True, True)
    assert User.objects.get(username=BOB).first_name == "José"


def test_async_login_with_a_password_ends_without_the_header(settings):
    User.objects.create_user("admin", password="correct horse")

    async def visit():
        client = AsyncAppClient()
        assert await client.alogin(username="admin", password="correct horse")
        return (await client.get("/async-user/")).content

    assert async_to_sync(visit)() == b""


# The test client.


def test_client_leaves_the_environment_as_it_was(client):
    client.sign_in(ADA)
    user_of(client)

    assert user_of(Client(), **{"X-Forwarded-Email": ADA}) == NO_USER


def test_backend_works_without_a_request(platform):
    assert ForwardedUserBackend().authenticate(None, ADA).get_username() == ADA


def test_name_is_taken_only_from_the_proxy():
    request = RequestFactory().get("/", headers={"X-Forwarded-Preferred-Username": "X"})

    assert ForwardedUserBackend().authenticate(request, ADA).first_name == ""
