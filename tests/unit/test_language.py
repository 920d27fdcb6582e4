"""The writing guide: words and phrases that do not belong in code, docs or messages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
# Archaic or translated idioms, private metaphors, and words with a standard term. Each
# is a regular expression, matched as whole words and without regard to case.
BANNED = (
    r"a farewell|farewell",
    r"ahead of (its|their|the) end",
    r"anew",
    r"as it was meant",
    r"asked of",
    r"at hand",
    r"backdoors?",
    r"be had",
    r"beforehand",
    r"by chance",
    r"come(s)? about|came about",
    r"cures?|cured",
    r"deeds?",
    r"estates?",
    r"ever after",
    r"for whoever|whoever",
    r"gives? way",
    r"had back",
    r"he|him|his|himself",
    r"in hand",
    r"in the place of",
    r"(is|are|was|were|be|been) told",
    r"islands?",
    r"ladders?",
    r"leases?|leased",
    r"mend(s|ed|ing)?",
    r"nobody('s)?",
    r"of (its|their|our|your|my|his|one's) own",
    r"of no use",
    r"of whom",
    r"one by one",
    r"passes by itself",
    r"please",
    r"residents?",
    r"stand(s)? in the log",
    r"tally|tallies",
    r"tell(s)? of|told of",
    r"thereby|thereof|therein|whereby|wherein",
    r"that is all there is",
    r"upon",
    r"what nobody knows",
    r"who waits",
    r"whose like",
    r"without a word",
)
PATTERN = re.compile(rf"(?<![\w-])({'|'.join(BANNED)})(?![\w-])", re.IGNORECASE)
FOLDERS = (
    ".ci",
    ".github",
    "benchmarks",
    "django_lakebase",
    "docs",
    "example_project",
    "tests",
    "tools",
)
SUFFIXES = {"", ".cfg", ".html", ".ini", ".md", ".py", ".toml", ".yaml", ".yml"}
SKIPPED = {"LICENSE", Path(__file__).name}
# The account and role "nobody", and texts of the service that the emulator repeats.
ALLOWED = re.compile(r"[\"']nobody[\"']")
SERVICE_TEXTS = "messages.py"


def texts() -> Iterator[Path]:
    """Yield the files that people read."""
    yield from (path for path in TOP.iterdir() if path.is_file())
    for folder in FOLDERS:
        yield from (path for path in (TOP / folder).rglob("*") if path.is_file())


def is_checked(path: Path) -> bool:
    """Return whether *path* is a text of the project, not a build result or data."""
    parts = path.relative_to(TOP).parts
    is_hidden = any(part in ("_build", "_made", "__pycache__") for part in parts)
    is_text = path.suffix in SUFFIXES and path.name not in SKIPPED
    return is_text and not is_hidden and not parts[0].startswith(".coverage")


def findings(text: str) -> Iterator[str]:
    """Yield the lines of *text* with a banned phrase, and the phrase."""
    for number, line in enumerate(text.splitlines(), 1):
        match = PATTERN.search(ALLOWED.sub("", line))
        if match:
            yield f"{number}: {match.group()!r} in: {line.strip()}"


def test_no_text_has_a_banned_phrase() -> None:
    found = [
        f"{path.relative_to(TOP)}:{finding}"
        for path in sorted(texts())
        if is_checked(path)
        for finding in findings(path.read_text(encoding="utf-8", errors="ignore"))
        if not (path.name == SERVICE_TEXTS and "please" in finding.lower())
    ]

    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    "sentence",
    [
        "It says how to mend it.",
        "A connection did not come about.",
        "The SDK makes a client of its own.",
        "Whoever takes it keeps a current token.",
    ],
)
def test_banned_phrases_are_found(sentence: str) -> None:
    assert list(findings(f"Good.\n{sentence}\n"))
