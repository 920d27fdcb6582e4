"""The timeline of the example project: its recorder, its shapes and its template."""

import datetime
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from django.http import HttpRequest
from django.template import Context, Engine

from django_lakebase import events
from django_lakebase.failures.failure import Action
from example_project.notes import recorder as module
from example_project.notes.recorder import (
    MAX_EVENTS,
    Event,
    Kind,
    Lane,
    Recorder,
    Track,
    recorded,
)
from example_project.notes.timeline import draw

TEMPLATES = Path(module.__file__).parent / "templates"
NOW = datetime.datetime(2026, 11, 28, 12, 0, 10, tzinfo=datetime.UTC)
# Of tokens that live for 20 seconds.
PAST, FUTURE = 120, 20


def at(seconds):
    """Return the time *seconds* after NOW."""
    return NOW + datetime.timedelta(seconds=seconds)


def token(issued, *, life=20.0):
    return Event(kind=Kind.TOKEN_ISSUED, at=at(issued), until=at(issued + life))


def event(kind, seconds):
    return Event(kind=kind, at=at(seconds), failure_id="api-unreachable")


def tracks(*events, since=-1000):
    return {
        lane: Track([e for e in events if e.kind.lane is lane], at(since))
        for lane in Lane
    }


def x(seconds, past=PAST, future=FUTURE):
    """Return the position of the time *seconds* after NOW."""
    return f"{100 * (past + seconds) / (past + future):.2f}%"


def width(seconds):
    return f"{100 * seconds / (PAST + FUTURE):.2f}%"


def render(picture, **context):
    engine = Engine(dirs=[str(TEMPLATES)])
    template = engine.get_template("notes/timeline.html")
    return template.render(Context({"picture": picture, "process": 7, **context}))


def parse(text):
    return ET.fromstring(text)  # noqa: S314 - our own text.


@pytest.fixture
def recorder(monkeypatch):
    """Replace the recorder of the process."""
    new = Recorder()
    monkeypatch.setattr(module, "recorder", new)
    return new


def test_token_is_cut_where_it_was_replaced_and_now():
    picture = draw(tracks(token(-22), token(-8)), NOW)

    pieces = [(p.style, p.x, p.width) for p in picture.pieces]
    assert pieces == [
        ("used", x(-22), width(14)),
        ("spare", x(-8), width(6)),
        ("used", x(-8), width(8)),
        ("used ahead", x(0), width(12)),
    ]
    used, spare, newer, _ = picture.pieces
    assert spare.height < used.height
    assert newer.y > used.y
    (link,) = picture.links
    assert link.x == x(-8)
    assert used.y < link.y < newer.y < link.end


def test_replaced_token_that_is_still_valid_has_a_future():
    picture = draw(tracks(token(-12), token(-1)), NOW)

    styles = [piece.style for piece in picture.pieces]
    assert styles == ["used", "spare", "spare ahead", "used", "used ahead"]


def test_token_after_an_expired_one_has_no_link():
    """Although it is in another row."""
    picture = draw(tracks(token(-60), token(-50), token(-10)), NOW)

    assert [link.x for link in picture.links] == [x(-50)]


def test_token_of_a_clock_that_is_ahead_has_no_length():
    """The rest of the picture is still drawn."""
    picture = draw(tracks(token(-5, life=-3), event(Kind.REQUEST, -1)), NOW)

    assert picture.pieces == []
    assert len(picture.requests) == 1


def test_token_keeps_its_row_when_older_tokens_leave_the_picture():
    """Otherwise all bars would jump at that moment."""
    events = tracks(*(token(12.0 * number) for number in range(-12, 0)))

    (before,) = (
        p for p in draw(events, NOW).pieces if (p.style, p.x) == ("used", x(-24))
    )
    later = draw(events, at(12)).pieces
    (after,) = (p for p in later if (p.style, p.x) == ("used", x(-36)))

    assert after.y == before.y


def test_tokens_outside_the_picture_are_not_drawn():
    picture = draw(tracks(token(-500), token(-10)), NOW)

    assert picture.counts["bar"] == 1


@pytest.mark.parametrize(
    ("life", "period"),
    [
        (6, "minute"),
        (19.6, "2 minutes"),
        (20.4, "2 minutes"),
        (60, "10 minutes"),
        (3600, "6 hours"),
        (90000, "6 hours"),
    ],
)
def test_period_covers_several_tokens(life, period):
    picture = draw(tracks(token(-1, life=life)), NOW)

    assert picture.period == period
    assert 80 < float(picture.now.rstrip("%")) < 95


def test_newest_token_determines_the_period():
    assert draw(tracks(token(-90, life=60), token(-1)), NOW).period == "2 minutes"


def test_axis_has_few_labels_in_utc_and_none_at_the_edges():
    ticks = draw(tracks(token(-1)), NOW).ticks

    assert ticks == [
        (x(-100), "11:58:30"),
        (x(-70), "11:59:00"),
        (x(-40), "11:59:30"),
        (x(-10), "12:00:00"),
        (x(20), ""),
    ]


def test_outcomes_differ_in_shape():
    kinds = list(Kind)[1:]
    picture = draw(tracks(*(event(kind, -10) for kind in kinds)), NOW)

    assert [mark.shape for mark in picture.marks] == [
        "cross",
        "dot",
        "triangle",
        "cross",
        "cross",
    ]
    assert len(picture.requests) == 1
    assert picture.latest_failure == "api-unreachable at 12:00:00"


def test_connections_at_the_same_time_are_in_separate_rows():
    events = [event(Kind.CONNECTION_OPENED, s) for s in (-20, -19.9, -10)]

    first, second, third = draw(tracks(*events), NOW).marks

    assert first.y == third.y
    assert first.y < second.y


def test_crowded_lane_has_a_limited_height():
    picture = draw(tracks(*[event(Kind.CONNECTION_OPENED, -1)] * 50), NOW)

    lane = picture.strips[1]
    assert len({mark.y for mark in picture.marks}) == 3
    assert all(lane.top < mark.y < lane.top + lane.height for mark in picture.marks)


def test_requests_that_cannot_be_distinguished_are_one_line():
    events = [event(Kind.REQUEST, -n / 100) for n in range(1, 1001)]

    picture = draw(tracks(*events), NOW)

    assert picture.counts["tick"] == 1000
    assert len(picture.requests) < 80


def test_time_before_the_first_record_is_marked():
    young, old = (draw(tracks(since=since), NOW) for since in (-60, -1000))

    assert {strip.unknown for strip in young.strips} == {x(-60)}
    assert not old.is_incomplete
    assert "Not recorded" in render(young)
    assert "Not recorded" not in render(old)


def test_svg_is_well_formed_and_describes_itself():
    kinds = list(Kind)[1:]
    events = [token(-22), token(-8), *(event(kind, -10) for kind in kinds)]

    figure = parse(render(draw(tracks(*events, since=-50), NOW)))

    svg = figure.find("svg")
    assert svg is not None
    assert svg.get("role") == "img"
    assert svg.findtext("title")
    assert svg.findtext("desc") == (
        "2 tokens, 1 connection opened, 1 request, 1 retried, 3 failed."
    )
    shapes = {use.get("href") for use in svg.iter("use")}
    assert shapes == {"#mark-dot", "#mark-triangle", "#mark-cross"}
    assert shapes == {f"#{e.get('id')}" for e in svg.iterfind("defs/*")}
    # Scales with the page, but not the text.
    assert (svg.get("width"), svg.get("viewBox")) == ("100%", None)


def test_timeline_without_events_says_so():
    text = render(draw(tracks(), NOW))

    assert [f"{lane.value}: none" in text for lane in Lane] == [True] * 3
    assert parse(text).tag == "figure"


@pytest.mark.parametrize("has_siblings", [True, False])
def test_timeline_mentions_other_processes_if_there_are_any(has_siblings):
    text = render(draw(tracks(), NOW), has_siblings=has_siblings)

    assert "This is process 7 only" in text
    assert ("other worker processes" in text) == has_siblings


def test_signals_are_recorded_without_their_texts(recorder):
    failure = ValueError("the token eyJhbGciOi was rejected")
    connect = events.ConnectEvent(
        "timeline", "primary", "ep-calm", "5432", "db", 1, 0.1
    )
    events.credential_issued(
        "cache", "primary", issued_at=NOW, expires_at=at(20), seconds=0.1
    )
    events.credential_failed("cache", "primary", failure, seconds=0.1)
    events.connection_opened("connector", connect, expires_at=at(20))
    events.connection_retried(
        "connector", connect, failure_id="waking", action=Action.RETRY, pause=0.1
    )
    events.connection_failed("connector", connect, failure_id="waking")

    kept = recorder.get_tracks()
    recorded_kinds = [e.kind for track in kept.values() for e in track.events]
    assert recorded_kinds == list(Kind)[:5]
    assert kept[Lane.TOKENS].events[0] == token(0)
    assert "eyJ" not in repr(kept)
    assert "ep-calm" not in repr(kept)


def test_failed_request_is_recorded_twice_and_counted_once(recorder):
    def view(request):
        raise LookupError

    with pytest.raises(LookupError):
        recorded(view)(HttpRequest())

    assert [event.kind for event in recorder.get_tracks()[Lane.REQUESTS].events] == [
        Kind.REQUEST,
        Kind.REQUEST_FAILED,
    ]
    assert recorder.get_count(Kind.REQUEST) == 1


def test_full_lane_drops_its_oldest_event_and_says_since_when_it_is_complete(recorder):
    recorder.record(token(-900))
    for number in range(MAX_EVENTS + 2):
        recorder.record(event(Kind.REQUEST, number))

    kept = recorder.get_tracks()

    assert len(kept[Lane.REQUESTS].events) == MAX_EVENTS
    assert kept[Lane.REQUESTS].since == at(2)
    assert kept[Lane.TOKENS].events == (token(-900),)
    assert kept[Lane.TOKENS].since > at(2)
    assert recorder.get_count(Kind.REQUEST) == MAX_EVENTS + 2
