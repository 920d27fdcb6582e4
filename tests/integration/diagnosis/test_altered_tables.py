"""The existing tables that pending migrations alter or reference."""

import pytest

from django_lakebase.diagnosis.altered_tables import find_altered_tables
from tests.helpers.queries import fetch_value

FIRST = "0001_initial"
SQL = """
CREATE TABLE app_foreign (id int PRIMARY KEY);
CREATE TABLE plain (id serial PRIMARY KEY, size int);
CREATE INDEX plain_size ON plain (size);
CREATE SCHEMA audit;
CREATE TABLE audit.app_place (id int);
"""
TABLES = f"""
    CreateModel(
        "Place",
        [
            ("id", models.AutoField(primary_key=True)),
            ("name", models.CharField(max_length=9)),
            ("size", models.IntegerField()),
        ],
        options={{
            "indexes": [models.Index(fields=["name"], name="by_name")],
            "unique_together": {{("name", "size")}},
        }},
    ),
    CreateModel(
        "Visit",
        [
            ("id", models.AutoField(primary_key=True)),
            ("place", models.ForeignKey("app.Place", models.CASCADE)),
            ("friends", models.ManyToManyField("app.Place", related_name="+")),
        ],
    ),
    CreateModel(
        "Dotted",
        [("id", models.AutoField(primary_key=True))],
        options={{"db_table": "the.Dotted one"}},
    ),
    CreateModel(
        "Foreign",
        [("id", models.AutoField(primary_key=True))],
        options={{"managed": False, "db_table": "app_foreign"}},
    ),
    CreateModel("Nearby", [], options={{"proxy": True}}, bases=("app.place",)),
    RunSQL({SQL!r}),
"""
CODE = """
def run(apps, schema_editor):
    schema_editor.execute("ALTER TABLE plain ADD name text")

class Custom(operations.base.Operation):
    def state_forwards(self, app_label, state):
        pass

    def database_forwards(self, app_label, schema_editor, before, after):
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("CREATE TABLE made (id int)")
        run(None, schema_editor)

class Query(Custom):
    def database_forwards(self, app_label, schema_editor, before, after):
        with schema_editor.connection.cursor() as cursor:
            cursor.execute("SELECT 'plain'")
            [(name,)] = cursor.fetchall()
        schema_editor.execute(f"DROP TABLE {name}")

class Concurrent(Custom):
    def database_forwards(self, app_label, schema_editor, before, after):
        if not schema_editor.connection.in_atomic_block:
            schema_editor.execute("DROP INDEX CONCURRENTLY plain_size")
"""
INTEGER = "models.IntegerField(null=True)"
LINK = '"app.Place", models.CASCADE, null=True, related_name="+"'
MANY = 'models.ManyToManyField("app.Place", related_name="+")'
UNIQUE = 'models.UniqueConstraint(fields=["size"], name="one")'
INDEX = 'models.Index(fields=["size"], name="by_size")'
# By operations: the tables that they alter, and those that they reference.
OPERATIONS = {
    f'AddField("place", "rank", {INTEGER})': "app_place",
    'AlterField("place", "size", models.BigIntegerField())': "app_place",
    'RemoveField("place", "size")': "app_place",
    'RenameField("place", "size", "area")': "app_place",
    # The columns that reference a primary key change with it.
    'AlterField("place", "id", models.BigAutoField(primary_key=True))': (
        "app_place app_visit app_visit_friends"
    ),
    # It replaces the foreign keys.
    'RenameModel("Place", "Spot")': "app_place app_visit app_visit_friends",
    'DeleteModel("Visit")': "app_visit app_visit_friends",
    'RemoveField("visit", "friends")': "app_visit_friends",
    'AlterModelTable("visit", "visits")': "app_visit app_visit_friends",
    'AlterModelTableComment("visit", "Of a place.")': "app_visit",
    f'AddField("dotted", "rank", {INTEGER})': "the.Dotted one",
    f'AddIndex("place", {INDEX})': "app_place",
    f'AddIndexConcurrently("place", {INDEX})': "app_place",
    'RemoveIndex("place", "by_name")': "app_place",
    'RenameIndex("place", new_name="named", old_name="by_name")': "app_place",
    'AlterUniqueTogether("place", set())': "app_place",
    f'AddConstraint("place", {UNIQUE})': "app_place",
    # Foreign keys, inside of CREATE TABLE or deferred.
    f'CreateModel("Photo", [("id", models.ForeignKey({LINK}))])': "-> app_place",
    f'AddField("visit", "next", models.ForeignKey({LINK}))': "app_visit -> app_place",
    f'AddField("visit", "more", {MANY})': "-> app_place app_visit",
    # No table changes.
    'AlterModelOptions("place", {"verbose_name": "spot"})': "",
    'AlterField("place", "size", models.IntegerField(help_text="In km."))': "",
    f'AddField("foreign", "rank", {INTEGER})': "",
    'DeleteModel("Nearby")': "",
    f'CreateModel("Fresh", [("size", {INTEGER})])': "",
    'CreateExtension("hstore")': "",
    # What an earlier pending operation creates does not exist yet.
    f'AddConstraint("place", {UNIQUE}), RemoveConstraint("place", "one")': "app_place",
    'SeparateDatabaseAndState([], [AlterUniqueTogether("visit", {("id", "place")})]), '
    'AlterUniqueTogether("visit", set())': "app_visit",
    f'RenameModel("Place", "Spot"), AddField("spot", "rank", {INTEGER})': (
        "app_place app_visit app_visit_friends"
    ),
    # SQL of the project.
    'RunSQL("DROP INDEX plain_size")': "plain",
    'RunSQL("ALTER SEQUENCE plain_id_seq RESTART")': "plain",
    "RunSQL(\"COMMENT ON COLUMN public.Plain.size IS 'ALTER TABLE app_place'\")": (
        "plain"
    ),
    'RunSQL(["-- DROP TABLE app_place", ("TRUNCATE plain", None), '
    '("DROP TABLE IF EXISTS app_visit_friends, \\"app_visit\\"; -- %s", ["x"])])': (
        "app_visit app_visit_friends plain"
    ),
    'RunSQL("CREATE TRIGGER t AFTER UPDATE OF size ON plain EXECUTE FUNCTION f()")': (
        "plain"
    ),
    'RunSQL("CREATE UNIQUE INDEX CONCURRENTLY ON ONLY plain (size)")': "plain",
    'RunSQL("CREATE TABLE t (place int REFERENCES public.\\"app_place\\")")': (
        "-> app_place"
    ),
    'RunSQL("ALTER TABLE audit.app_place ADD size int")': "",
    'RunSQL("UPDATE plain SET size = 1")': "",
    # No Python is executed, and operations of the project may only query.
    "RunPython(run)": "",
    "SeparateDatabaseAndState([SeparateDatabaseAndState([RunPython(run), "
    f'AddField("visit", "rank", {INTEGER})])], '
    f'[AddField("place", "rank", {INTEGER})])': "app_visit",
    "Query()": "plain",
    "Custom()": "",
    "Custom(), Query()": "plain",
    "Concurrent()": "plain",
}


@pytest.fixture
def tables(site, write_migration):
    """Create tables as the owner."""
    write_migration(FIRST, TABLES)
    site.call(site.owner, "migrate", "-v0")
    site.execute(site.owner, "GRANT SELECT ON ALL TABLES IN SCHEMA public TO {app}")


def describe(found):
    """Return the altered tables, and the referenced ones after an arrow."""
    kinds: dict[str, list[str]] = {"alters": [], "references": []}
    for table, use in sorted(found.items()):
        kinds[use.kind].append(table)
    referenced = ["->", *kinds["references"]] if kinds["references"] else []
    return " ".join([*kinds["alters"], *referenced])


@pytest.mark.parametrize("role", ["app", "owner"])
def test_operations_name_the_tables_they_alter(
    site, tables, write_migration, open_step_session, role
):
    """The owner could create the table of Custom."""
    session = open_step_session(getattr(site, role))
    found = {}
    for n, operations in enumerate(OPERATIONS):
        name = f"0002_number_{n}"
        path = write_migration(name, operations, after=FIRST, code=CODE)
        tables = find_altered_tables(session)
        path.unlink()
        found[operations] = describe(tables)
        assert {use.migration for use in tables.values()} <= {f"app.{name}"}

    assert found == OPERATIONS
    assert session.wrapper.get_autocommit()
    assert fetch_value(session.wrapper, "SHOW transaction_read_only") == "off"


def test_first_migration_that_alters_a_table_is_named(
    site, tables, write_migration, open_step_session
):
    """Rather than an earlier one that only references it."""
    photo = f'CreateModel("Photo", [("id", models.ForeignKey({LINK}))])'
    write_migration("0002_photo", photo, after=FIRST)
    write_migration("0003_size", 'RemoveField("place", "size")', after="0002_photo")
    write_migration("0004_name", 'RemoveField("place", "name")', after="0003_size")

    found = find_altered_tables(open_step_session())

    assert found == {"app_place": ("app.0003_size", "alters")}


def test_tables_of_the_projects_schema_are_found(
    site, write_migration, open_step_session
):
    """And not those of the same name in public."""
    thing = 'CreateModel("Thing", [("id", models.AutoField(primary_key=True))])'
    write_migration(FIRST, thing)
    site.call(site.owner, "migrate", "-v0", schema="things")
    site.execute(site.owner, "CREATE TABLE public.other (id int)")
    alter = 'RunSQL("ALTER TABLE other ADD size int; ALTER TABLE things.app_thing ...")'
    write_migration("0002_next", alter, after=FIRST)

    found = find_altered_tables(open_step_session(site.owner, schema="things"))

    assert found == {"app_thing": ("app.0002_next", "alters")}


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ('CreateModel("Photo", [("id", models.ForeignKey({}))])', "warn"),
        ('AddField("note", "next", models.ForeignKey({}))', "fail"),
    ],
)
def test_ownership_is_required_to_alter_and_not_to_reference(
    site, write_migration, operation, status
):
    note = 'CreateModel("Note", [("id", models.AutoField(primary_key=True))])'
    write_migration(FIRST, note)
    site.call(site.owner, "migrate", "-v0")
    link = LINK.replace("Place", "Note")
    write_migration("0002_next", operation.format(link), after=FIRST)

    step = site.check()["ownership"]

    assert step["status"] == status, step


@pytest.mark.parametrize(
    "operation", ['DeleteModel("Old")', 'AlterModelTable("Old", "app_new")']
)
def test_ownership_of_a_table_that_no_model_has_any_more(
    site, write_migration, operation
):
    old = 'CreateModel("Old", [("id", models.AutoField(primary_key=True))])'
    write_migration(FIRST, old)
    site.call(site.owner, "migrate", "-v0")
    write_migration("0002_next", operation, after=FIRST)

    step = site.check()["ownership"]

    assert (step["status"], step["findings"][0]["id"]) == ("fail", "ownership")
    assert "app_old" in step["detail"]
    site.execute(site.owner, "GRANT CREATE ON SCHEMA public TO {app}")
    site.correct(step)
    assert "app_old" not in site.check()["ownership"]["detail"]


def test_unreadable_history_names_no_tables(site, tables, open_step_session):
    site.execute(site.owner, "REVOKE SELECT ON django_migrations FROM {app}")

    assert find_altered_tables(open_step_session()) == {}
