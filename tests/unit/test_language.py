"""The writing guide: words and phrases that do not belong in code, docs or messages."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

TOP = Path(__file__).parents[2]
# Archaic or translated idioms, private metaphors, and words with a standard term. Each
# is a regular expression, matched as whole words and without regard to case.
BANNED = (
    r"(is|are|was|were|be|been) told",
    r"farewell",
    r"ahead of (its|their|the) end",
    r"all the same",
    r"anew",
    r"as (it|they) (is|are|was|were) meant",
    r"as ever",
    r"as it was",
    r"asked of",
    r"at hand",
    r"backdoors?",
    r"be had",
    r"beforehand",
    r"by chance",
    r"by itself",
    r"by themselves",
    r"(comes?|came) about",
    r"comes? and go(es?|ne)?",
    r"cures?|cured",
    r"deeds?",
    r"estates?",
    r"ever after",
    r"for ever",
    r"whoever",
    r"gives? way",
    r"goes by what",
    r"had back",
    r"he|him|his|himself",
    r"in good health",
    r"in hand",
    r"in the place of",
    r"islands?",
    r"ladders?",
    r"leases?|leased",
    r"lends?|lending",
    r"lets? it prove",
    r"mend(s|ed|ing)?",
    r"nobody('s)?",
    r"of (its|their|our|your|my|his|one's) own",
    r"of (our|Django's|the engine's) (own )?kind",
    r"of no use",
    r"of whom",
    r"one by one",
    r"one of every two",
    r"please",
    r"puts? down in",
    r"renew(s|ed|al|als|ing)?",
    r"residents?",
    r"somebody else's",
    r"speaks? (of|for|with every)",
    r"stands? in the log",
    r"stands? (by|there|in between|still)",
    r"stays? (there|as it)",
    r"takes? everything away",
    r"tally|tallies",
    r"(tells?|told) of",
    r"(tells?|told) apart",
    r"tells? the truth",
    r"that is all there is",
    r"the books",
    r"the very same",
    r"there is to (tell|lose|know|see)",
    r"thereby|thereof|therein|whereby|wherein",
    r"under way",
    r"upon",
    r"waits? (it|this) out|waited (for|out) (by|inside|until)",
    r"what (he|they|it|somebody) (says?|said|saw|sees|asked for|had)",
    r"what (is|are|was|were) (asked|had|left out|promised|said|there|told)",
    r"what takes long",
    r"where (it|that|there) is none",
    r"who waits",
    r"whose like",
    r"without a word",
    r"words of the (server|service)",
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
SUFFIXES = {"", ".cfg", ".html", ".ini", ".md", ".toml", ".txt", ".yaml", ".yml"}
SUFFIXES |= {".py", ".py-tpl", ".sh"}
SKIPPED = {"LICENSE", Path(__file__).name}
# The account and role "nobody", and texts of the service that the emulator repeats.
ALLOWED = re.compile(r"[\"']nobody[\"']")
SERVICE_TEXTS = "login_errors.py"


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
