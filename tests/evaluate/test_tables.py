"""The terminal's tables show every figure that a row has, and short names for long rules."""

import io
from dataclasses import replace

import pytest
from result_rows import ROW as A_ROW
from rich.console import Console

from maskfree.evaluation.reporting.tables import (
    by_class,
    curve,
    percent,
    short_rule,
    summary,
    threshold_of,
)

ROW = replace(A_ROW, benchmark="coco-mini")


MANY_WORDS = "words:" + ",".join(f"thing {i}" for i in range(26))


def ruled(background, **changes):
    return replace(ROW, protocol=ROW.protocol | {"background": background}, **changes)


def text(*tables):
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(*tables)
    return captured.get()


def line_with(shown, word):
    return next(line for line in shown.splitlines() if word in line)


def test_the_summary_shows_what_ran_and_percent():
    line = line_with(text(summary([ROW])), "threshold:0.25")
    cells = [cell.strip() for cell in line.strip("│").split("│")]
    assert cells == ["own", "plain", "threshold:0.25", "30.1", "60.4", "-", "51.2", "0.25"]
    assert "coco-mini, 7 photos, model pocket (a1b2c3d4)" in text(summary([ROW]))


def test_boundary_f_has_a_column_only_if_it_was_measured():
    assert "boundary F" not in text(summary([ROW]))
    shown = text(summary([ROW, replace(ROW, boundary_f=0.123)]))
    assert "boundary F" in shown
    assert "12.3" in shown


def test_parts_of_the_classes_stand_under_their_row():
    parts = {"unseen classes": 0.111, "seen classes": None, "harmonic mean of classes": 0.077}
    shown = text(summary([replace(ROW, parts=parts)]))
    assert "11.1" in line_with(shown, "unseen classes")
    assert "-" in line_with(shown, "  seen classes")
    assert "7.7" in line_with(shown, "harmonic mean")


def test_a_long_list_of_background_words_is_counted():
    assert short_rule(MANY_WORDS) == "words (26)"
    assert short_rule("words:wall,sky/cloud,tree") == "words:wall,sky/cloud,tree"
    assert short_rule("none") == "none"
    shown = text(summary([ruled(MANY_WORDS)]), by_class([ruled(MANY_WORDS)]))
    assert shown.count("words (26)") == 2
    assert "thing 3" not in shown


def test_classes_of_all_rows_are_listed_once_with_a_dash_for_what_is_absent():
    shown = text(by_class([ROW, ruled("none", iou={"dog": 0.25, "horse": 1.0})]))
    assert [cell.strip() for cell in line_with(shown, "dog").strip("│").split("│")] == [
        "dog",
        "50.0",
        "25.0",
    ]
    assert [cell.strip() for cell in line_with(shown, "sheep").strip("│").split("│")] == [
        "sheep",
        "-",
        "-",
    ]
    assert [cell.strip() for cell in line_with(shown, "horse").strip("│").split("│")] == [
        "horse",
        "-",
        "100.0",
    ]


def test_columns_by_class_name_the_protocol_only_where_there_are_several():
    assert "own" not in text(by_class([ROW]))
    assert "tcl" in text(by_class([ROW, replace(ROW, protocol_name="tcl")]))
    assert "the first" in text(by_class([ROW], ["the first"]))


def test_a_sweep_is_listed_by_threshold_and_no_line_stands_out():
    rows = [ruled(f"threshold:{t}", mean_iou=m) for t, m in ((0.5, 0.2), (-0.1, 0.3), (0.25, 0.4))]
    shown = text(curve(rows))
    lines = [line.strip("│").split("│") for line in shown.splitlines() if line.startswith("│")]
    assert [[cell.strip() for cell in line] for line in lines] == [
        ["-0.1", "30.0", "60.4"],
        ["0.25", "40.0", "60.4"],
        ["0.5", "20.0", "60.4"],
    ]
    assert "best" not in shown


def test_a_sweep_needs_thresholds():
    with pytest.raises(ValueError, match="'none' has no threshold"):
        curve([ruled("none")])
    assert threshold_of(ruled("threshold:.95")) == 0.95


def test_percent_has_a_dash_for_nothing():
    assert (percent(None), percent(0.0), percent(1)) == ("-", "0.0", "100.0")
