"""``manage.py lakebase_check``: proves the connection, or says how to mend it."""

import json
import time
from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.core.management.color import Style
from django.db import connections
from django.utils.connection import ConnectionDoesNotExist

from django_lakebase.base import LakebaseMixin
from django_lakebase.diagnosis import Diagnosis, Status, Step

# Seconds between tries under --wait, doubled up to the second.
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0


class Command(BaseCommand):
    """Arguments, text or JSON, and the exit status; the steps are in diagnosis.py."""

    help = (
        "Proves that Django can connect to Lakebase: the settings, the login to the "
        "workspace, the endpoint, a credential, TLS, the login to Postgres, and a "
        "second credential. Says what is wrong and how to mend it. Exits with 1 if a "
        "step fails."
    )
    # It must work before anything else does.
    requires_system_checks = ()
    requires_migrations_checks = False

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the options."""
        parser.add_argument(
            "--database",
            action="append",
            metavar="ALIAS",
            help="Check this alias; may be repeated. Default: all Lakebase aliases.",
        )
        parser.add_argument(
            "--format",
            choices=("text", "json"),
            default="text",
            help="text (default) or json, whose step ids are stable.",
        )
        parser.add_argument(
            "--wait",
            type=_seconds,
            default=0.0,
            metavar="SECONDS",
            help="Try again for so long while the endpoint wakes or the workspace "
            "cannot be reached; for the start of a container.",
        )

    def handle(self, **options: Any) -> None:
        """Check the aliases; exits with 1 if a step fails."""
        deadline = time.monotonic() + options["wait"]
        is_text = options["format"] == "text"
        report = []
        for alias, wrapper in self._wrappers(options["database"]):
            if is_text:
                self.stdout.write(alias)
            steps = self._check(wrapper, deadline, is_text=is_text)
            report.append((alias, steps))
        if not is_text:
            self.stdout.write(json.dumps(_as_json(report), indent=2))
        if any(step.status is Status.FAIL for _, steps in report for step in steps):
            raise SystemExit(1)

    def _wrappers(self, aliases: list[str] | None) -> list[tuple[str, LakebaseMixin]]:
        chosen = []
        for alias in dict.fromkeys(aliases or connections):
            try:
                wrapper = connections[alias]
            except ConnectionDoesNotExist as exc:
                known = ", ".join(connections)
                raise CommandError(
                    f'DATABASES has no alias "{alias}"; it has: {known}.'
                ) from exc
            if isinstance(wrapper, LakebaseMixin):
                chosen.append((alias, wrapper))
            elif aliases:
                engine = wrapper.settings_dict["ENGINE"]
                raise CommandError(
                    f'DATABASES["{alias}"] has the ENGINE "{engine}": lakebase_check '
                    'is for "django_lakebase".'
                )
        if not chosen:
            raise CommandError(
                "No alias of DATABASES uses this engine. Set "
                'DATABASES = {"default": {"ENGINE": "django_lakebase"}}.'
            )
        return chosen

    def _check(
        self, wrapper: LakebaseMixin, deadline: float, *, is_text: bool
    ) -> list[Step]:
        pause = FIRST_PAUSE
        while True:
            steps = []
            for step in Diagnosis(wrapper).run():
                steps.append(step)
                if is_text:
                    for line in _lines(step, self.style):
                        self.stdout.write(line)
            failed = next((s for s in steps if s.status is Status.FAIL), None)
            left = deadline - time.monotonic()
            if failed is None or not failed.may_pass or left <= pause:
                return steps
            if is_text:
                self.stdout.write(f"  trying again, for {left:.0f} s more")
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise ArgumentTypeError(f'"{text}" is not a number of seconds from 0 on.')
    return seconds


def _lines(step: Step, style: Style) -> Iterator[str]:
    paints: dict[Status, Callable[[str], str]] = {
        Status.OK: style.SUCCESS,
        Status.WARN: style.WARNING,
        Status.FAIL: style.ERROR,
        Status.SKIPPED: str,
    }
    word = paints[step.status](f"{step.status:<8}")
    yield f"  {word} {step.id:<11}{step.seconds:6.2f} s  {step.detail}"
    if step.mend:
        yield f"{'':11}{step.mend}"


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
    del fields["may_pass"]
    return {**fields, "seconds": round(step.seconds, 3)}
