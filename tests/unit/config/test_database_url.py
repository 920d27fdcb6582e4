"""DATABASE_URL with dj-database-url and django-environ: docs/howto/urls.md."""

import re
from pathlib import Path
from typing import Any

import dj_database_url
import environ
import pytest

import django_lakebase
from django_lakebase.config import resolve as config

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
# The target of each URL of the page, in the environment above.
EXPECTED: dict[str, dict[str, Any]] = {
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
    """Register the schemes as the page does, and undo that after the test."""
    monkeypatch.setattr(dj_database_url, "ENGINE_SCHEMES", {})
    monkeypatch.setattr(environ.Env, "DB_SCHEMES", {})
    monkeypatch.setenv("DATABASE_URL", "lakebase:///")
    for block in BLOCKS[:2]:
        exec(block, {})  # noqa: S102 - our own documentation.


@pytest.fixture(params=["dj-database-url", "django-environ"])
def parse(request):
    """Return the parser of each package."""
    if request.param == "django-environ":
        return environ.Env.db_url_config
    return dj_database_url.parse


def completed(parsed):
    """Return *parsed* with the keys that Django adds."""
    return {"OPTIONS": {}, **parsed}


def test_every_url_of_the_page_has_an_expected_target():
    assert set(URLS) == set(EXPECTED)


@pytest.mark.parametrize("url", EXPECTED)
def test_url_sets_the_target(parse, url):
    """With both packages."""
    settings = completed(parse(url))

    target = config.resolve_target(settings, "default", ENVIRON)

    assert {name: getattr(target, name) for name in EXPECTED[url]} == EXPECTED[url]
    gis = url.startswith("lakebase+postgis")
    assert settings["ENGINE"] == f"django_lakebase{'.postgis' if gis else ''}"


def test_percent_encoded_password_is_decoded(parse):
    parsed = parse("lakebase://reporter:p%40ss%2Fw@ep-a.example.com/shop")

    assert parsed["PASSWORD"] == "p@ss/w"


def test_workspace_callable_in_a_url_is_used(parse):
    settings = completed(parse("lakebase:///?workspace=shop.login.client"))

    login = config.resolve_target(settings, "default", ENVIRON).login
    assert login is not None
    assert login.path == "shop.login.client"


def test_pool_options_can_be_added_to_a_parsed_url(monkeypatch):
    """The line of the page also works if the URL has no OPTIONS."""
    cases: list[Any] = [dj_database_url.parse("lakebase:///"), {}]
    for parsed in cases:
        settings = {"DATABASES": {"default": parsed}}
        exec(BLOCKS[2], settings)  # noqa: S102 - our own documentation.
        assert parsed["OPTIONS"] == {"pool": {"max_size": 10}}


def test_conn_max_age_is_set_by_argument_or_query():
    """dj-database-url takes an argument, django-environ a query parameter."""
    by_argument = dj_database_url.parse("lakebase:///", conn_max_age=600)
    by_url = environ.Env.db_url_config("lakebase:///?conn_max_age=600")

    assert by_argument["CONN_MAX_AGE"] == by_url["CONN_MAX_AGE"] == 600
