"""DATABASE_URL by dj-database-url and django-environ, as docs/howto/urls.md says."""

import re
from pathlib import Path
from typing import Any

import dj_database_url
import environ
import pytest

import django_lakebase
from django_lakebase import config

PAGE = Path(django_lakebase.__file__).parents[1] / "docs/howto/urls.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
URLS = re.findall(r"^\| `(lakebase\S*)` \|", PAGE.read_text(), re.MULTILINE)
ENVIRON = {
    "DATABRICKS_CLIENT_ID": "client",
    "ENDPOINT_NAME": "projects/env/branches/b/endpoints/e",
    "PGHOST": "ep-env.example.com",
    "PGDATABASE": "env",
}
FROM_ENVIRON = {"endpoint": ENVIRON["ENDPOINT_NAME"], "host": "ep-env.example.com"}
SHOP = "projects/shop/branches"
PRIMARY = f"{SHOP}/production/endpoints/primary"
# What each URL of the page leads to, in the environment above.
SAID: dict[str, dict[str, Any]] = {
    "lakebase:///": {**FROM_ENVIRON, "database": "env", "user": "client"},
    "lakebase:///shop": {**FROM_ENVIRON, "database": "shop"},
    "lakebase+postgis:///shop": {**FROM_ENVIRON, "database": "shop"},
    f"lakebase://ep-a.example.com:5433/shop?endpoint={PRIMARY}": {
        "host": "ep-a.example.com",
        "port": "5433",
        "database": "shop",
        "endpoint": PRIMARY,
    },
    f"lakebase://ada%40example.com@/shop?endpoint={SHOP}/dev/endpoints/primary": {
        "host": "",
        "user": "ada@example.com",
        "endpoint": f"{SHOP}/dev/endpoints/primary",
    },
    "lakebase:///?workspace=shop.login.client": {**FROM_ENVIRON, "user": ""},
    "lakebase:///?pool=true&connect_budget=7.5": {
        "connect_budget": 7.5,
        "options": (("pool", True),),
    },
    "lakebase:///?sslmode=verify-full&sslrootcert=/etc/ssl/own.pem": {
        "sslmode": "verify-full",
        "sslrootcert": "/etc/ssl/own.pem",
    },
    "lakebase:///?options=-c%20search_path%3Dshop,public": {
        "options": (("options", "-c search_path=shop,public"),),
    },
    "lakebase://reporter:p%40ss%2Fw@ep-a.example.com/shop": {
        "user": "reporter",
        "host": "ep-a.example.com",
        "login": None,
    },
}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """Have the page's registrations carried out, and taken back afterwards."""
    monkeypatch.setattr(dj_database_url, "ENGINE_SCHEMES", {})
    monkeypatch.setattr(environ.Env, "DB_SCHEMES", {})
    monkeypatch.setenv("DATABASE_URL", "lakebase:///")
    for block in BLOCKS[:2]:
        exec(block, {})  # noqa: S102 - our own documentation.


@pytest.fixture(params=["dj-database-url", "django-environ"])
def parse(request):
    """Give each of the packages."""
    if request.param == "django-environ":
        return environ.Env.db_url_config
    return dj_database_url.parse


def completed(parsed):
    """Return *parsed* as Django completes it."""
    return {"OPTIONS": {}, **parsed}


def test_every_url_of_the_page_is_tried():
    """None is promised that the next test does not know."""
    assert set(URLS) == set(SAID)


@pytest.mark.parametrize("url", SAID)
def test_a_url_leads_where_it_says(parse, url):
    """Host, user, database, endpoint and options travel in it, with both packages."""
    settings = completed(parse(url))

    target = config.read(settings, "default", ENVIRON)

    assert {name: getattr(target, name) for name in SAID[url]} == SAID[url]
    gis = url.startswith("lakebase+postgis")
    assert settings["ENGINE"] == f"django_lakebase{'.postgis' if gis else ''}"


def test_a_password_in_a_url_is_decoded(parse):
    """It is what the role was given, with all its special characters."""
    parsed = parse("lakebase://reporter:p%40ss%2Fw@ep-a.example.com/shop")

    assert parsed["PASSWORD"] == "p@ss/w"


def test_a_callable_s_path_travels_in_a_url(parse):
    """The one login that a URL can name."""
    settings = completed(parse("lakebase:///?workspace=shop.login.client"))

    login = config.read(settings, "default", ENVIRON).login
    assert login is not None
    assert login.path == "shop.login.client"


def test_a_dict_is_added_in_the_settings(monkeypatch):
    """The page's line works where the URL gave no OPTIONS, too."""
    cases: list[Any] = [dj_database_url.parse("lakebase:///"), {}]
    for parsed in cases:
        settings = {"DATABASES": {"default": parsed}}
        exec(BLOCKS[2], settings)  # noqa: S102 - our own documentation.
        assert parsed["OPTIONS"] == {"pool": {"max_size": 10}}


def test_the_age_of_connections_is_said_as_each_package_wants_it():
    """One takes it as an argument, the other in the URL."""
    by_argument = dj_database_url.parse("lakebase:///", conn_max_age=600)
    by_url = environ.Env.db_url_config("lakebase:///?conn_max_age=600")

    assert by_argument["CONN_MAX_AGE"] == by_url["CONN_MAX_AGE"] == 600
