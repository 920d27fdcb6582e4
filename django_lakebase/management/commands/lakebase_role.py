"""``manage.py lakebase_role``: Postgres roles with the privileges that Django needs."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

import psycopg
from django.core.management.base import BaseCommand, CommandError, CommandParser

from django_lakebase.auth.registry import access_to
from django_lakebase.auth.singleflight import CALL_TIMEOUT, CallError
from django_lakebase.base import LakebaseMixin
from django_lakebase.connect.errors import call_workspace
from django_lakebase.connect.liveness import Connection
from django_lakebase.diagnosis.extensions import find_missing_extensions
from django_lakebase.diagnosis.session import Session, open_connection
from django_lakebase.exceptions import ExplainedError
from django_lakebase.failures.classify import scrub
from django_lakebase.failures.render import original_message
from django_lakebase.management.aliases import get_wrapper
from django_lakebase.management.role_arguments import (
    add_common_options,
    add_options_of_django,
    add_role_options,
    read_request,
)
from django_lakebase.management.role_report import (
    Report,
    describe_privileges,
    describe_role,
    find_notes,
    find_notes_after_revoke,
)
from django_lakebase.roles.apply import LOCK_TIMEOUT, apply_changes, find_missing
from django_lakebase.roles.change import Change
from django_lakebase.roles.facts import (
    Facts,
    Request,
    fetch_facts,
    is_of_service,
)
from django_lakebase.roles.overview import Overview, fetch_overview
from django_lakebase.roles.revoke import plan_revoke
from django_lakebase.roles.statements import quoted

# Seconds in which the workspace has to create a role.
CREATE_TIMEOUT = 60.0
HELP = {
    "create": "Create a role if it does not exist, and grant what is missing.",
    "revoke": "Revoke what the role was granted. It keeps the tables that it owns.",
    "sql": "Print the SQL that create would run, and change nothing.",
    "show": "Show roles, privileges, and the owners of the tables of installed apps.",
}


class Command(BaseCommand):
    """Runs one of the actions in `HELP` as the identity that the alias logs in with."""

    help = (
        "Creates Postgres roles that log in with tokens, and grants what a Django "
        "project needs, so that no SQL has to be written by hand. Runs as the identity "
        "that the alias logs in with: usually the owner of the Lakebase project."
    )
    # The command has to run even if other parts of the project are broken.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the actions and their options."""
        actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
        for action, text in HELP.items():
            options = actions.add_parser(action, help=text, description=text)
            add_options_of_django(options)
            add_common_options(options)
            if action != "show":
                add_role_options(options)
            if action in ("create", "sql"):
                options.add_argument(
                    "--read-only",
                    action="store_true",
                    help="Grant only SELECT, and make its transactions read-only.",
                )
            if action in ("create", "revoke"):
                options.add_argument(
                    "--dry-run",
                    action="store_true",
                    help="Print what would be run, and change nothing.",
                )
            if action == "create":
                options.add_argument(
                    "--via",
                    choices=("sql", "api"),
                    default="sql",
                    help="Create the role with databricks_create_role (default), or "
                    "with the workspace's API.",
                )
            if action == "show":
                options.add_argument(
                    "--format",
                    choices=("text", "json"),
                    default="text",
                    help="text for people (default), or json for programs.",
                )
            elif action != "sql":
                options.add_argument(
                    "--format",
                    choices=("text", "sql", "json"),
                    default="text",
                    help="text for people (default), sql for a script of what is left "
                    "to run, or json for programs.",
                )

    def handle(self, **options: Any) -> None:
        """Run the action; exit with status 1 if something could not be done."""
        wrapper = get_wrapper(options["database"], "lakebase_role")
        label = f'DATABASES["{wrapper.alias}"]'
        try:
            if options.get("via") == "api" and wrapper.get_target().login is None:
                raise CommandError(
                    f"{label} logs in with a password, so --via api has no login to "
                    "the workspace. Leave it out to create the role with SQL."
                )
            with open_connection(wrapper) as connection:
                self._run(wrapper, connection, options)
        except ExplainedError as exc:
            raise CommandError(str(exc)) from exc
        except psycopg.errors.LockNotAvailable as exc:
            raise CommandError(
                f"{label}: another transaction has used a table, or has changed roles, "
                f"for more than {LOCK_TIMEOUT}. Nothing was changed. Run the command "
                "again."
            ) from exc
        except psycopg.OperationalError as exc:
            # It is not known whether the changes were committed.
            raise CommandError(
                f"{label}: {original_message(exc)} Run the command again: it changes "
                "only what is missing."
            ) from exc
        except psycopg.Error as exc:
            raise CommandError(
                f'{label}: PostgreSQL rejected a statement: "{original_message(exc)}". '
                "Nothing was changed in the database."
            ) from exc

    def _run(
        self, wrapper: LakebaseMixin, connection: Connection, options: dict[str, Any]
    ) -> None:
        action, request = options["action"], read_request(wrapper, options)
        if action == "show":
            overview = fetch_overview(connection, request)
            self._show(wrapper.alias, overview, options["format"])
        elif action == "sql":
            facts = fetch_facts(connection, request)
            _require_owner_role(request, facts)
            changes = _find_missing(wrapper, connection, request)
            self._write_script(changes, find_notes(wrapper, request, facts))
        else:
            self._change(wrapper, connection, request, options)

    def _change(
        self,
        wrapper: LakebaseMixin,
        connection: Connection,
        request: Request,
        options: dict[str, Any],
    ) -> None:
        """Create or revoke, and report what was done and what is left."""
        is_dry_run, facts = options["dry_run"], fetch_facts(connection, request)
        find_changes: Callable[[], list[Change]]
        if options["action"] == "revoke":
            if request.role not in facts.roles:
                raise CommandError(f'The role "{request.role}" does not exist.')
            find_changes = partial(plan_revoke, connection, request)
            notes = find_notes_after_revoke(request, facts)
        else:
            _require_owner_role(request, facts)
            if options["via"] == "api" and not is_dry_run:
                _create_by_api(wrapper, request, facts)
            find_changes = partial(_find_missing, wrapper, connection, request)
            notes = find_notes(wrapper, request, facts)
        if is_dry_run:
            left = changes = find_changes()
        else:
            changes = apply_changes(connection, find_changes)
            left = find_changes()
        report = Report(
            alias=wrapper.alias,
            role=request.role,
            runner=facts.database.runner,
            done=[change for change in changes if change not in left],
            left=left,
            is_dry_run=is_dry_run,
            notes=notes,
        )
        self._write_report(report, options["format"])
        if left and not is_dry_run:
            raise SystemExit(1)

    def _write_script(self, changes: list[Change], notes: list[str]) -> None:
        self.stdout.write("BEGIN;")
        for change in changes:
            self._write_comment(f'As "{change.role}": {change.detail}')
            for statement in change.statements:
                self.stdout.write(statement)
        self.stdout.write("COMMIT;")
        for note in notes:
            self._write_comment(note)

    def _write_comment(self, text: str) -> None:
        # Names of tables and roles may contain the end of the comment.
        self.stdout.write(f"-- {' '.join(text.splitlines())}")

    def _write_report(self, report: Report, output: str) -> None:
        if output == "json":
            self.stdout.write(json.dumps(report.as_json(), indent=2))
        elif output == "sql":
            for change in report.done:
                for statement in change.statements:
                    self._write_comment(f"Done: {statement}")
            self._write_script(report.left, report.notes)
        else:
            self._write_text(report)

    def _write_text(self, report: Report) -> None:
        if report.done:
            self.stdout.write(self.style.SUCCESS(f'Done, as "{report.runner}":'))
            self._write_statements(report.done)
        for role, group in groupby(report.left, attrgetter("role")):
            left = list(group)
            heading = f'To be run as "{role}":'
            if not report.is_dry_run:
                heading = f'Not done, because it has to be run as "{role}":'
                if role == report.runner:
                    heading = f'Not done before that, to be run as "{role}":'
            self.stdout.write(self.style.WARNING(heading))
            self._write_statements(left)
        if not report.done and not report.left:
            self.stdout.write(f'Nothing to change for "{report.role}".')
        for note in report.notes:
            self.stdout.write(note)

    def _write_statements(self, changes: list[Change]) -> None:
        for change in changes:
            for statement in change.statements:
                self.stdout.write(f"  {statement}")

    def _show(self, alias: str, overview: Overview, output: str) -> None:
        if output == "json":
            report = {"version": 1, "alias": alias, **asdict(overview)}
            self.stdout.write(json.dumps(report, indent=2))
            return
        database = overview.database
        self.stdout.write(
            f'Database "{database.name}" of "{database.owner}", schema '
            f'"{database.schema}" of "{database.schema_owner}"'
        )
        for role in overview.roles:
            self.stdout.write(f'"{role.name}": {describe_role(role)}')
            for line in describe_privileges(overview, role):
                self.stdout.write(f"  {line}")


def _require_owner_role(request: Request, facts: Facts) -> None:
    """Raise CommandError if the owner role can log in, or if there is another one."""
    owner_role = request.owner_role
    if not owner_role or request.grantee != owner_role:
        return
    for other in sorted({r.owner for r in facts.relations} - {owner_role}):
        present = facts.roles.get(other)
        is_group = present is not None and not present.can_log_in
        if is_group and not is_of_service(other):
            rename = f"ALTER ROLE {quoted(other)} RENAME TO {quoted(owner_role)};"
            raise CommandError(
                f'Tables of the project belong to the owner role "{other}". Sessions '
                "that use it would lose them, so the command does not give them to "
                f'"{owner_role}". Use --owner-role "{other}" '
                f'(OPTIONS["assume_role"]), or rename it: {rename}'
            )
    role = facts.roles.get(owner_role)
    can_log_in = role is not None and role.can_log_in
    if request.role == owner_role or can_log_in:
        raise CommandError(
            f'The role "{owner_role}" can log in, so it cannot be the owner role: its '
            "members would have all privileges of that identity. Choose another name "
            'for --owner-role (OPTIONS["assume_role"]); the command creates the role.'
        )


def _find_missing(
    wrapper: LakebaseMixin, connection: Connection, request: Request
) -> list[Change]:
    """Return what the role lacks, and the extensions that the project lacks."""
    changes = find_missing(connection, request)
    if request.is_read_only:
        return changes
    with _without_assumed_role(wrapper):
        session = Session(wrapper=wrapper, connection=connection)
        for finding in find_missing_extensions(session):
            if finding.statements:
                changes.append(
                    Change(
                        id=finding.id,
                        role=finding.role,
                        detail=finding.detail,
                        statements=finding.statements,
                    )
                )
    return changes


@contextmanager
def _without_assumed_role(wrapper: LakebaseMixin) -> Iterator[None]:
    """Let *wrapper* connect as its login, since the role may not exist yet."""
    settings = wrapper.settings_dict
    # Connections of a pool have the role, or keep it.
    left_out = ("assume_role", "pool")
    options = {k: v for k, v in settings["OPTIONS"].items() if k not in left_out}
    # Not a copy of the wrapper: Django's MigrationRecorder finds it by its alias.
    wrapper.settings_dict = {**settings, "OPTIONS": options}
    try:
        yield
    finally:
        wrapper.close()
        wrapper.settings_dict = settings


def _create_by_api(wrapper: LakebaseMixin, request: Request, facts: Facts) -> None:
    """Create the role by the workspace's API; raises LakebaseError or CommandError."""
    if request.role in facts.roles:
        return
    target = wrapper.get_target()
    access = access_to(target)
    endpoint = call_workspace(target, lambda: access.endpoint.get(CALL_TIMEOUT))
    branch = endpoint.partition("/endpoints/")[0]
    try:
        access.workspace.create_role(
            branch, request.role, request.identity_type, timeout=CREATE_TIMEOUT
        )
    except CallError as exc:
        cause = exc.__cause__ or exc
        raise CommandError(
            f"The workspace has not created the role in {branch}: "
            f"{scrub(str(cause))} Creating roles by the API requires CAN MANAGE on "
            "the project. With SQL, it requires that the owner of the database runs "
            "the command: leave out --via api."
        ) from cause
