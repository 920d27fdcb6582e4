"""The step ``migrations`` of ``lakebase_check --deploy``."""

import pytest

MODEL = """CreateModel("Thing", [("id", models.AutoField(primary_key=True))])"""
FIELD = """AddField("thing", "size", models.IntegerField(null=True))"""
RECORD = (
    "INSERT INTO django_migrations (app, name, applied) VALUES ('app', '{}', now())"
)


@pytest.fixture
def things(write_migration):
    """Write two migrations."""
    write_migration("0001_initial", MODEL)
    write_migration("0002_size", FIELD, after="0001_initial")


def ids(step):
    return [finding["id"] for finding in step["findings"]]


def test_all_migrations_of_an_empty_database_are_pending(site, things):
    """The check creates no table for them, and lakebase_migrate applies them."""
    site.execute(site.owner, "GRANT CREATE ON SCHEMA public TO {app}")

    step = site.check()["migrations"]
    with site.session(site.owner) as session:
        found = session.execute("SELECT to_regclass('django_migrations')").fetchone()
    site.call(site.app, "lakebase_migrate", "-v0")
    after = site.check()["migrations"]

    assert found == (None,)
    assert (step["status"], ids(step)) == ("warn", ["migrations-pending"])
    assert step["detail"] == (
        "pending migrations: 2 of 2 (app.0001_initial, app.0002_size)"
    )
    command = "Run: python manage.py lakebase_migrate --database other"
    assert step["hint"] == command
    assert after["status"] == "ok"
    assert after["detail"] == "all 2 migrations are applied"


def test_only_a_few_pending_migrations_are_named(site, write_migration):
    write_migration("0001_initial", MODEL)
    for n in range(2, 6):
        after = "0001_initial" if n == 2 else f"000{n - 1}_more"
        write_migration(f"000{n}_more", after=after)

    detail = site.check()["migrations"]["detail"]

    assert detail.endswith("app.0001_initial, app.0002_more, app.0003_more and 2 more)")


def test_history_without_a_dependency_is_inconsistent(site, things):
    """It is consistent after the row has been added, as the hint says."""
    site.call(site.owner, "migrate", "-v0")
    site.execute(
        site.owner, "DELETE FROM django_migrations WHERE name = '0001_initial'"
    )

    step = site.check()["migrations"]
    site.execute(site.owner, RECORD.format("0001_initial"))
    after = site.check()["migrations"]

    assert step["status"] == "fail"
    assert ids(step) == ["migrations-inconsistent"]
    assert "app.0002_size is applied before its dependency" in step["detail"]
    assert after["status"] == "ok"


def test_two_last_migrations_are_a_conflict(site, things, write_migration):
    """A migration that merges them corrects it."""
    site.call(site.owner, "migrate", "-v0")
    write_migration("0002_color", after="0001_initial")

    step = site.check()["migrations"]
    both = [("app", "0002_size"), ("app", "0002_color")]
    write_migration("0003_merge", dependencies=both)
    merged = site.check()["migrations"]

    assert step["status"] == "fail"
    assert ids(step) == ["migrations-conflict"]
    assert "0002_color, 0002_size of app" in step["detail"]
    assert "makemigrations --merge app" in step["hint"]
    assert ids(merged) == ["migrations-pending"]


def test_migration_that_the_code_lacks_is_reported(site, things, write_migration):
    """It may be of a newer version; --prune forgets one that was squashed."""
    site.call(site.owner, "migrate", "-v0")
    site.execute(site.owner, RECORD.format("0003_newer"))
    # Of an app that is not installed.
    site.execute(site.owner, RECORD.format("0001_initial").replace("'app'", "'gone'"))

    step = site.check()["migrations"]
    write_migration("0003_newer", after="0002_size")
    after = site.check()["migrations"]

    assert (step["status"], ids(step)) == ("warn", ["migrations-unknown"])
    assert step["detail"].endswith("does not have: app.0003_newer")
    assert "migrate app --prune --database other" in step["hint"]
    assert after["status"] == "ok"


@pytest.mark.parametrize("is_deleted", [False, True])
def test_squashed_migrations_count_as_django_counts_them(
    site, write_migration, is_deleted
):
    """Also after the migrations that it replaces have been deleted."""
    replaced = [
        write_migration("0001_initial", MODEL),
        write_migration("0002_size", FIELD, after="0001_initial"),
    ]
    site.call(site.owner, "migrate", "-v0")
    names = [("app", path.stem) for path in replaced]
    write_migration("0001_squashed", MODEL, FIELD, replaces=names)
    for path in replaced if is_deleted else ():
        path.unlink()

    step = site.check()["migrations"]

    assert (step["status"], ids(step)) == ("ok", [])
    assert step["detail"] == "all 1 migrations are applied"


def test_missing_dependency_is_reported(site, things, write_migration):
    write_migration("0003_more", after="0002_gone")

    steps = site.check()

    assert ids(steps["migrations"]) == ["migrations-invalid"]
    assert steps["migrations"]["status"] == "fail"
    assert "0002_gone" in steps["migrations"]["detail"]
    assert steps["extensions"]["status"] == "ok"
    assert "not checked" in steps["extensions"]["detail"]


def test_file_that_cannot_be_imported_is_reported(site, things, write_migration):
    path = write_migration("0003_broken", after="0002_size")
    path.write_text("import nowhere")

    steps = site.check()

    assert ids(steps["migrations"]) == ["migrations-invalid"]
    assert "No module named 'nowhere'" in steps["migrations"]["detail"]
    assert "not checked" in steps["extensions"]["detail"]


@pytest.mark.parametrize("missing", ["SELECT ON django_migrations", "USAGE ON SCHEMA"])
def test_unreadable_history_points_at_the_privileges(site, things, missing):
    """Of a schema without USAGE, the role does not see the tables."""
    privileges = {
        "SELECT ON django_migrations": "SELECT ON things.django_migrations",
        "USAGE ON SCHEMA": "USAGE ON SCHEMA things",
    }
    site.call(site.owner, "migrate", "-v0", schema="things")
    for name, privilege in privileges.items():
        if name != missing:
            site.execute(site.owner, f"GRANT {privilege} TO {{app}}")

    steps = site.check(schema="things")
    site.execute(site.owner, f"GRANT {privileges[missing]} TO {{app}}")
    after = site.check(schema="things")["migrations"]

    assert ids(steps["migrations"]) == ["migrations-unreadable"]
    assert steps["migrations"]["status"] == "warn"
    assert "privileges" in steps["migrations"]["hint"]
    assert steps["privileges"]["status"] == "fail"
    assert after["status"] == "ok"


def test_unfinished_lakebase_migrate_is_reported(site, things):
    """It was killed before post_migrate; the next one finishes."""
    site.call(site.owner, "lakebase_migrate", "-v0")
    row = RECORD.format("post_migrate").replace("'app'", "'lakebase_migrate'")
    site.execute(site.owner, row)

    step = site.check()["migrations"]
    site.call(site.owner, "lakebase_migrate", "-v0")
    after = site.check()["migrations"]

    assert (step["status"], ids(step)) == ("warn", ["migrations-unfinished"])
    assert after["status"] == "ok"


def test_alias_without_migrated_models_needs_no_migrations(site, things, settings):
    class Router:
        def allow_migrate(self, db, app_label, **hints):
            return db != "other"

    settings.DATABASE_ROUTERS = [Router()]

    step = site.check()["migrations"]

    assert step["status"] == "ok"
    assert "routers" in step["detail"]
