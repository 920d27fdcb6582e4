"""``manage.py lakebase_check``: verifies connections, or explains what fails."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from itertools import groupby
from operator import attrgetter
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.color import Style
from django.db import connections

from django_lakebase.base import LakebaseMixin
from django_lakebase.diagnosis.step import Status, Step
from django_lakebase.diagnosis.steps import Diagnosis
from django_lakebase.management.aliases import get_wrapper
from django_lakebase.management.wait import Pauses, seconds


class Command(BaseCommand):
    """Runs the steps of a `Diagnosis` for each alias; prints them as text or JSON."""

    help = (
        "Verifies that Django can connect to Lakebase: the settings, the login to the "
        "workspace, the endpoint, a credential, TLS, the login to Postgres, and a "
        "second credential. If a step fails, prints the reason with a hint and exits "
        "with status 1."
    )
    # The command has to run even if other parts of the project are broken.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--database",
            action="append",
            metavar="ALIAS",
            help="Check this alias; can be repeated. Default: all Lakebase aliases.",
        )
        parser.add_argument(
            "--deploy",
            action="store_true",
            help="Also check what a deployment needs: privileges, ownership, "
            "migrations, extensions, row-level security, limits, replica identity.",
        )
        parser.add_argument(
            "--format",
            choices=("text", "json"),
            default="text",
            help="text for people (default), or json with stable step ids.",
        )
        parser.add_argument(
            "--wait",
            type=seconds,
            default=0.0,
            metavar="SECONDS",
            help="Retry for this long after failures that may clear on their own, such "
            "as an endpoint that is waking; for container startup.",
        )

    def handle(self, **options: Any) -> None:
        """Check the aliases; exit with status 1 if a step fails."""
        deadline = time.monotonic() + options["wait"]
        is_text = options["format"] == "text"
        report = []
        for alias, wrapper in self._wrappers(options["database"]):
            if is_text:
                self.stdout.write(alias)
            diagnosis = partial(Diagnosis, wrapper, deploy=options["deploy"])
            steps = self._check(diagnosis, deadline, is_text=is_text)
            report.append((alias, steps))
        if not is_text:
            self.stdout.write(json.dumps(_as_json(report), indent=2))
        if any(step.status is Status.FAIL for _, steps in report for step in steps):
            raise SystemExit(1)

    def _wrappers(self, aliases: list[str] | None) -> list[tuple[str, LakebaseMixin]]:
        chosen = [
            (alias, get_wrapper(alias, "lakebase_check"))
            for alias in dict.fromkeys(aliases or connections)
            if aliases or isinstance(connections[alias], LakebaseMixin)
        ]
        if not chosen:
            raise CommandError(
                "No alias of DATABASES uses this engine. Set "
                'DATABASES = {"default": {"ENGINE": "django_lakebase"}}.'
            )
        return chosen

    def _check(
        self, diagnosis: Callable[[], Diagnosis], deadline: float, *, is_text: bool
    ) -> list[Step]:
        pauses = Pauses(deadline)
        while True:
            steps = []
            for step in diagnosis().run():
                steps.append(step)
                if is_text:
                    for line in _lines(step, self.style):
                        self.stdout.write(line)
            left = pauses.left()
            if not left or not any(step.is_transient for step in steps):
                return steps
            if is_text:
                self.stdout.write(f"  retrying for another {left:.0f} s")
            pauses.sleep()


def _lines(step: Step, style: Style) -> Iterator[str]:
    styles: dict[Status, Callable[[str], str]] = {
        Status.OK: style.SUCCESS,
        Status.WARN: style.WARNING,
        Status.FAIL: style.ERROR,
        Status.SKIPPED: str,
    }
    status = styles[step.status](f"{step.status:<8}")
    yield f"  {status} {step.id:<16} {step.seconds:6.2f} s  {step.detail}"
    if step.hint and not step.findings:
        yield f"{'':11}{step.hint}"
    for role, findings in groupby(step.findings, attrgetter("role")):
        together = list(findings)
        yield from (f"{'':11}{f.hint}" for f in together if f.hint)
        statements = [statement for f in together for statement in f.statements]
        if statements:
            yield f'{"":11}As "{role}", or as a member of it, run:'
            yield from (f"{'':13}{statement}" for statement in statements)


def _as_json(report: list[tuple[str, list[Step]]]) -> dict[str, Any]:
    return {
        "version": 1,
        "aliases": [
            {"alias": alias, "steps": [_step_as_json(step) for step in steps]}
            for alias, steps in report
        ],
    }


def _step_as_json(step: Step) -> dict[str, Any]:
    fields = asdict(step)
    del fields["is_transient"]
    return {**fields, "seconds": round(step.seconds, 3)}
