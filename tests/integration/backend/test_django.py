"""Django on the engine: migrations, ORM, admin, commands."""

import io
import threading

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.urls import reverse

from tests.projects.app.models import Note

pytestmark = pytest.mark.every_environment


@pytest.mark.django_db
def test_tests_run_in_a_test_database(local):
    assert connection.settings_dict["NAME"].startswith("test_databricks_postgres")


@pytest.mark.django_db
def test_orm_writes_and_reads(local):
    with transaction.atomic():
        Note.objects.create(text="hello")

    assert Note.objects.get().text == "hello"


@pytest.mark.django_db
def test_admin_logs_in_and_saves(client, local):
    User.objects.create_superuser("ada", password="correct horse")
    assert client.login(username="ada", password="correct horse")

    answer = client.post(reverse("admin:app_note_add"), {"text": "from the admin"})

    assert answer.status_code == 302
    assert Note.objects.get().text == "from the admin"


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("inspectdb", "app_note"), "class AppNote"),
        (("dumpdata", "auth.permission"), '"auth.permission"'),
        (("showmigrations", "auth"), "[X] 0001_initial"),
        (("sqlmigrate", "auth", "0001"), "CREATE TABLE"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_management_commands_work(local, command, expected):
    out = io.StringIO()

    call_command(*command, stdout=out)

    assert expected in out.getvalue()


@pytest.mark.django_db(transaction=True)
def test_each_thread_has_its_own_connection(local):
    found = []

    def work():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            found.append(cursor.fetchone()[0])
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(set(found)) == 2
