"""Sphinx configuration, and the pages that are generated from tables in the code."""

from pathlib import Path

from django_lakebase import __version__
from django_lakebase.config.libpq import VARIABLES
from django_lakebase.failures.catalog import FAILURES
from django_lakebase.failures.failure import Action, Failure
from django_lakebase.local.faults import FAULTS

project = "django_lakebase"
author = "The django_lakebase authors"
copyright = author  # noqa: A001 - Sphinx's name.
release = __version__
extensions = ["myst_parser"]
myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3
# Hints contain SQL and commands, which must keep their quotes and dashes.
smartquotes = False
exclude_patterns = ["_build", "_made"]
html_theme = "furo"
html_title = f"django_lakebase {release}"

MADE = Path(__file__).parent / "_made"
ACTIONS = {
    Action.REFRESH: "drops the token and tries once more with a new one",
    Action.RETRY: "retries until `connect_budget` ends",
    Action.RETRY_BRIEFLY: "retries for at most 10 seconds",
    Action.PROBE: "tries once with a newly issued token, then retries for at most "
    "10 seconds",
    Action.FAIL: "fails immediately",
}


def _text(template: str) -> str:
    """Return *template* as Markdown, with its fields in single angle quotes."""
    text = template.replace("{{", "\0").replace("}}", "\1")
    text = text.replace("{", "\u2039").replace("}", "\u203a")
    text = text.replace("\0", "{").replace("\1", "}")
    return text.replace("<", "&lt;").replace("*", "\\*")


def _sentence(template: str) -> str:
    text = _text(template)
    return text[0].upper() + text[1:]


def _row(failure: Failure) -> str:
    """Return the row of *failure* in the table at the top of the page."""
    link = f"[`{failure.id}`](#error-{failure.id})"
    summary = _sentence(failure.summary).replace("|", "\\|")
    return f"| {link} | {summary} | {ACTIONS[failure.action]} |"


def _section(failure: Failure) -> str:
    """Return the section of *failure*; links from outside use its explicit target."""
    hint = _text(failure.hint)
    if failure.hint == "{fix}":
        hint = "The text of the error says what to do."
    action = f"The engine {ACTIONS[failure.action]}."
    if failure.is_transient:
        action += " `lakebase_check --wait` retries."
    return (
        f"(error-{failure.id})=\n### {failure.id}\n\n{_sentence(failure.summary)}\n\n"
        f"Hint\n: {hint}\n\nAction\n: {action}\n"
    )


def _make_pages() -> None:
    MADE.mkdir(exist_ok=True)
    lines = ["| id | what happened | what the engine does |", "|---|---|---|"]
    lines += [_row(failure) for failure in FAILURES]
    (MADE / "errors.md").write_text("\n".join(lines) + "\n")
    for source in ("settings", "workspace", "server"):
        sections = [_section(row) for row in FAILURES if row.source == source]
        (MADE / f"{source}.md").write_text("\n".join(sections))
    lines = ["| fault | effect | options |", "|---|---|---|"]
    for name, fault in FAULTS.items():
        options = ", ".join(f"`{key}={value}`" for key, value in fault.options.items())
        lines.append(f"| `{name}` | {fault.summary} | {options} |")
    (MADE / "faults.md").write_text("\n".join(lines) + "\n")
    lines = ["| variable | effect | notes |", "|---|---|---|"]
    lines += [f"| `{v.name}` | {v.effect} | {v.note} |" for v in VARIABLES]
    (MADE / "libpq.md").write_text("\n".join(lines) + "\n")


_make_pages()
