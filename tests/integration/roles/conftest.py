"""Sites: a database that the owner has migrated, and the identities that use it."""

import io
import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import psycopg
import pytest
from django.core.management import call_command
from django.db import connections
from psycopg import sql

from django_lakebase.local.client import LocalLakebase
from tests.conftest import NewWrapper
from tests.helpers.credential_cache import forget_credentials
from tests.helpers.local_settings import settings_for
from tests.helpers.plain_psycopg import new_database, open_session

# What the platform grants to an app, and what the service's guide grants.
GRANTS = {
    "app": "GRANT CONNECT, CREATE ON DATABASE {database} TO {role};",
    "guide": """
        GRANT CONNECT ON DATABASE {database} TO {role};
        GRANT USAGE ON SCHEMA public TO {role};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {role};
        ALTER DEFAULT PRIVILEGES IN SCHEMA public
            GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
    """,
}
Step = dict[str, Any]
OWNER_ROLE = "site_owner"


class Site:
    """A database and the commands of its developers and of its app."""

    def __init__(self, local: LocalLakebase, name: str, new_wrapper: NewWrapper):
        self.local, self.name, self._new_wrapper = local, name, new_wrapper
        self.owner = local.facts["owner"]
        self.app = local.facts["service_principal"]

    def connect(self, role: str, **options: Any) -> Any:
        """Make the alias "other" log in as *role*: the owner, a developer, the app."""
        settings, facts = settings_for(self.local), self.local.facts
        tokens = {
            facts["owner"]: facts["owner_token"],
            facts["developer"]: facts["developer_token"],
        }
        if role in tokens:
            host = self.local.env["DATABRICKS_HOST"]
            settings["OPTIONS"]["workspace"] = {"host": host, "token": tokens[role]}
        settings["OPTIONS"].update(options)
        settings.update(NAME=self.name, USER=role)
        connections["other"] = wrapper = self._new_wrapper(**settings)
        return wrapper

    def call(self, role: str, *arguments: str, **options: Any) -> str:
        """Run a management command as *role*; return its output."""
        self.connect(role, **options)
        out = io.StringIO()
        # As an option, --database accepts only the aliases in the settings.
        call_command(*arguments, database="other", stdout=out)
        connections["other"].close()
        return out.getvalue()

    def check(self, role: str = "", **options: Any) -> dict[str, Step]:
        """Return the steps of ``lakebase_check --deploy`` by id; *role* is the app."""
        self.connect(role or self.app, **options)
        out = io.StringIO()
        with suppress(SystemExit):
            arguments = ("--deploy", "--format", "json", "--database", "other")
            call_command("lakebase_check", *arguments, stdout=out)
        connections["other"].close()
        [alias] = json.loads(out.getvalue())["aliases"]
        return {step["id"]: step for step in alias["steps"]}

    @contextmanager
    def session(self, role: str) -> Iterator["psycopg.Connection[Any]"]:
        """Open a session that does not use the engine."""
        with open_session(self.local, user=role, dbname=self.name) as session:
            yield session

    def execute(self, role: str, *statements: str) -> None:
        """Execute *statements*; {app}, {owner} and {database} are identifiers."""
        names = {"app": self.app, "owner": self.owner, "role": self.app}
        names["database"] = self.name
        quoted = {key: sql.Identifier(name) for key, name in names.items()}
        with self.session(role) as session:
            for statement in statements:
                session.execute(sql.SQL(statement).format(**quoted))

    def correct(self, step: Step) -> None:
        """Run the statements of the findings, as the roles that they name."""
        assert step["findings"], step
        for finding in step["findings"]:
            with self.session(finding["role"]) as session:
                for statement in finding["statements"]:
                    session.execute(statement)


@pytest.fixture(scope="session", params=["system", "embedded"])
def server(request: pytest.FixtureRequest) -> Iterator[LocalLakebase]:
    """Yield a local Lakebase on the oldest and on the newest PostgreSQL."""
    options = ("--postgres", request.param, "--grants", "app")
    with LocalLakebase.start(*options) as local:
        yield local


@pytest.fixture(scope="session")
def template(server: LocalLakebase) -> Iterator[str]:
    """Yield the name of a database that nothing has used."""
    with new_database(server, user=server.facts["owner"]) as name:
        yield name


@pytest.fixture
def site(
    server: LocalLakebase, template: str, new_wrapper: NewWrapper
) -> Iterator[Site]:
    """Yield a site on a copy of a database that the owner has migrated."""
    forget_credentials()
    owner = server.facts["owner"]
    with open_session(server, user=owner, dbname=template) as session:
        found = session.execute("SELECT to_regclass('django_migrations')").fetchone()
    if found == (None,):
        Site(server, template, new_wrapper).call(owner, "migrate", "-v0")
    name = f"site_{uuid.uuid4().hex[:8]}"
    with open_session(server, user=owner) as session:
        session.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
    yield Site(server, name, new_wrapper)
    with suppress(AttributeError):
        connections["other"].close()
        del connections["other"]
    with open_session(server, user=owner) as session:
        # Waits for a few seconds until the last session has ended.
        session.execute(f"DROP DATABASE {name}")
        # Roles and memberships are of the whole server.
        for role in (OWNER_ROLE, f"{name}_owner"):
            session.execute(f"DROP ROLE IF EXISTS {role}")
        app = sql.Identifier(server.facts["service_principal"])
        if session.info.server_version < 160000:
            session.execute(sql.SQL("REVOKE {} FROM CURRENT_USER").format(app))
