"""How far work has come, by a clock of the test's own and a terminal that is a buffer."""

from __future__ import annotations

import io
import re
import sys

import pytest

from maskfree import cli
from maskfree.progress import Progress, unwatched


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return Terminal()


@pytest.fixture
def file() -> io.StringIO:
    return io.StringIO()


def work(progress: Progress, clock: Clock, seconds: list[float], **options) -> None:
    """Spend so many seconds on each item."""
    assert [each for each in progress(seconds, **options) if wait(clock, each)] == seconds


def wait(clock: Clock, seconds: float) -> bool:
    clock.now += seconds
    return True


def screens(terminal: Terminal) -> list[str]:
    """What the bar said each time, without colors and control codes."""
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.getvalue())
    return [line.strip() for line in re.split(r"[\r\n]+", plain) if line.strip()]


def test_short_work_shows_nothing(clock: Clock, terminal: Terminal):
    work(Progress(clock=clock, stream=terminal), clock, [0.1] * 19)
    assert terminal.getvalue() == ""


def test_a_bar_tells_the_time_left(clock: Clock, terminal: Terminal):
    work(Progress(clock=clock, stream=terminal), clock, [1.0] * 90, name="sky [1]")
    shown = screens(terminal)
    assert len(shown) >= 80
    assert re.fullmatch(r"sky \[1\] .+ +2/90 0:01:28 left", shown[0])
    assert re.fullmatch(
        r"sky \[1\] .+ +60/90 0:00:30 left", next(line for line in shown if " 60/90" in line)
    )


def test_the_bar_goes_when_work_ends_or_fails(clock: Clock, terminal: Terminal):
    items = Progress(clock=clock, stream=terminal)([3.0, 3.0])
    with pytest.raises(KeyboardInterrupt):
        for seconds in items:
            clock.now += seconds
            if clock.now > 1005:
                raise KeyboardInterrupt
    items.close()
    assert terminal.getvalue().endswith(
        "\x1b[?25h\r\x1b[1A\x1b[2K"
    ) or terminal.getvalue().endswith("\x1b[2K")
    assert "\x1b[?25h" in terminal.getvalue()  # the cursor is shown again


def test_many_quick_steps_redraw_ten_times_a_second(clock: Clock, terminal: Terminal):
    work(Progress(clock=clock, stream=terminal), clock, [0.001] * 4000)
    assert 15 <= len(screens(terminal)) <= 30


def test_results_on_a_terminal_stand_above_the_bar_and_in_a_file_as_they_are(
    clock: Clock, terminal: Terminal, monkeypatch: pytest.MonkeyPatch
):
    for stdout, written in ((io.StringIO(), "a: sky\n" * 3), (Terminal(), "")):
        monkeypatch.setattr(sys, "stdout", stdout)
        for seconds in Progress(clock=clock, stream=terminal)([3.0, 3.0, 3.0]):
            clock.now += seconds
            sys.stdout.write("a: sky\n")
        assert sys.stdout is stdout
        assert stdout.getvalue() in (written, "a: sky\n")  # before the bar comes
    assert screens(terminal).count("a: sky") == 2


@pytest.mark.parametrize("dumb", [False, True])
def test_elsewhere_a_line_comes_every_half_minute(
    clock: Clock, file: io.StringIO, monkeypatch: pytest.MonkeyPatch, dumb: bool
):
    if dumb:
        file = Terminal()
        monkeypatch.setenv("TERM", "dumb")
    work(Progress(clock=clock, stream=file), clock, [1.0] * 100, name="search")
    assert file.getvalue().splitlines() == [
        "maskfree: search: 30 of 100, 0:01:10 left",
        "maskfree: search: 60 of 100, 0:00:40 left",
        "maskfree: search: 90 of 100, 0:00:10 left",
    ]


def test_a_number_that_is_not_known_or_given_apart(clock: Clock, file: io.StringIO):
    for options in ({}, {"total": 4}):
        for _ in Progress(clock=clock, stream=file)(iter("abc"), **options):
            clock.now += 40
    assert [line.removeprefix("maskfree: photos: ") for line in file.getvalue().splitlines()] == [
        "1, 0:00:40 so far",
        "2, 0:01:20 so far",
        "3, 0:02:00 so far",
        "1 of 4, 0:02:00 left",
        "2 of 4, 0:01:20 left",
        "3 of 4, 0:00:40 left",
    ]


def test_work_inside_the_items_counts_when_it_is_done(clock: Clock, file: io.StringIO):
    def made():
        for each in range(3):
            clock.now += 40
            yield each

    assert list(Progress(clock=clock, stream=file, title="mine")(made(), "theirs", 3)) == [0, 1, 2]
    assert file.getvalue().splitlines()[0] == "maskfree: mine: 1 of 3, 0:01:20 left"


def test_quiet_and_unwatched_show_nothing(clock: Clock, terminal: Terminal):
    work(Progress(quiet=True, clock=clock, stream=terminal), clock, [60.0] * 5)
    assert list(unwatched("abc", "letters", 3)) == ["a", "b", "c"]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize(
    "command",
    [
        *(
            "segment",
            "track",
            "search",
            "evaluate",
        ),
        *(f"prepare {what}" for what in ("entities", "segments", "teacher", "prototypes")),
        *("distill clips4", "distill pseudo-labels"),
        *(f"evaluate {kind}" for kind in ("tracking", "regions", "knn", "linear")),
    ],
)
def test_long_commands_can_be_quiet(command: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    assert "--quiet" in capsys.readouterr().out
