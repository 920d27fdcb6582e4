"""Sphinx: Markdown by MyST, the Furo theme, and pages made from the code's tables."""

from pathlib import Path

from django_lakebase import __version__
from django_lakebase.failures import FAILURES
from django_lakebase.kinds import Failure, Then
from django_lakebase.libpq import VARIABLES
from django_lakebase.local.faults.registry import FAULTS

project = "django_lakebase"
author = "The django_lakebase authors"
copyright = author  # noqa: A001 - Sphinx's name.
release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "_made"]
html_theme = "furo"
html_title = f"django_lakebase {release}"

MADE = Path(__file__).parent / "_made"
CONNECTING = {
    Then.RENEW: "drops that credential and tries once more with a new one",
    Then.WAIT: "waits and tries again until `connect_budget` is spent",
    Then.WAIT_BRIEFLY: "waits and tries again for 10 seconds at most",
    Then.PROBE: "tries once more with a new credential, which is kept if that works; "
    "then it waits and tries again for 10 seconds at most, for a server that starts "
    "may say so in another language",
    Then.STOP: "stops at once",
}


def _failure(failure: Failure) -> str:
    known = {"{": "\u2039", "}": "\u203a"}
    means, mend = (
        text.replace("{{", "\0").replace("}}", "\1").translate(str.maketrans(known))
        for text in (failure.means, failure.mend)
    )
    if mend == "\u2039fix\u203a":
        mend = "Do what the text of the error says."
    means, mend = (t.replace("\0", "{").replace("\1", "}") for t in (means, mend))
    means, mend = (t.replace("<", "&lt;").replace("*", "\\*") for t in (means, mend))
    return (
        f"### {failure.id}\n\n{means[0].upper()}{means[1:]}\n\n**Mend.** {mend}\n\n"
        f"Connecting {CONNECTING[failure.then]}.\n"
    )


def _make_pages() -> None:
    MADE.mkdir(exist_ok=True)
    for source in ("settings", "workspace", "server"):
        rows = [_failure(row) for row in FAILURES if row.source == source]
        (MADE / f"{source}.md").write_text("\n".join(rows))
    lines = ["| fault | what it does | options |", "|---|---|---|"]
    for name, fault in FAULTS.items():
        options = ", ".join(f"`{key}={value}`" for key, value in fault.options.items())
        lines.append(f"| `{name}` | {fault.summary} | {options} |")
    (MADE / "faults.md").write_text("\n".join(lines) + "\n")
    lines = ["| variable | effect | |", "|---|---|---|"]
    lines += [f"| `{v.name}` | {v.effect} | {v.note} |" for v in VARIABLES]
    (MADE / "libpq.md").write_text("\n".join(lines) + "\n")


_make_pages()
