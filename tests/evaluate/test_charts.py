"""Figures show the figures that they are given, are the same file each time, and are written whole
or not at all.
"""

import builtins
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from result_rows import ROW as A_ROW

from maskfree.evaluation.reporting import charts
from maskfree.evaluation.reporting.charts import (
    Panel,
    Series,
    class_bars,
    curve,
    ranking_bars,
    threshold_curve,
)

IOU = {"dog": 0.5, "sheep": None, "cow": 0.125, "person": 0.75}
MANY = {f"thing {i}": i / 100 for i in range(90)}
ROW = replace(A_ROW, iou=IOU, protocol={"names": "plain", "background": "none"})
SWEEP = [
    replace(
        ROW,
        protocol=ROW.protocol | {"background": f"threshold:{t}"},
        mean_iou=m,
        pixel_accuracy=m + 0.25,
    )
    for t, m in ((0.5, 0.125), (0.0, 0.25), (0.25, 0.375))
]
TWO_MODELS = [*SWEEP, *(replace(row, model="other", mean_iou=None) for row in SWEEP)]
LINES = [
    Series("VOC", [5, 10, 25], [0.25, 0.5, 0.375], [0.01, 0.02, 0.03]),
    Series("Context", [5, 10, 25], [0.1, None, 0.2]),
]
PANELS = [
    Panel("first protocol", ["a", "b", "c"], [0.5, 0.25, None]),
    Panel("second " * 30, ["d"], [0.75]),
]
FIGURES = {
    "class bars": lambda path: class_bars(IOU, "IoU by class", path),
    "classes in order": lambda path: class_bars(IOU, "IoU by class", path, mean=0.4, in_order=True),
    "many classes": lambda path: class_bars(MANY, "IoU by class", path),
    "sweep": lambda path: threshold_curve(SWEEP, path, fixed=0.25),
    "two sweeps": lambda path: threshold_curve(TWO_MODELS, path),
    "curve": lambda path: curve(LINES, "clusters C", "mIoU", "by cluster number", path, fixed=25),
    "one line": lambda path: curve(LINES[:1], "clusters C", "mIoU", "by cluster number", path),
    "rankings": lambda path: ranking_bars(PANELS, path),
}


def comments(path):
    """The texts of an SVG, which matplotlib draws as outlines and names in comments."""
    return re.findall(r"<!-- (.*?) -->", path.read_text())


@pytest.fixture
def drawn(monkeypatch):
    """Figures as they are saved, to look at their axes."""
    figures, save = [], charts.save

    def keep(figure, path):
        figures.append(figure)
        return save(figure, path)

    monkeypatch.setattr(charts, "save", keep)
    return figures


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_figure_is_the_same_file_each_time_and_has_no_date(tmp_path, name, suffix):
    one, two = (FIGURES[name](tmp_path / f"{i}" / f"figure{suffix}") for i in range(2))
    assert one.read_bytes() == two.read_bytes()
    assert [file.name for file in one.parent.iterdir()] == [one.name]
    assert one.stat().st_mode & 0o777 == 0o644
    assert b"dc:date" not in one.read_bytes()


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_has_something_in_it_and_nothing_is_cut_off(tmp_path, name):
    with Image.open(FIGURES[name](tmp_path / "figure.png")) as picture:
        pixels = np.asarray(picture.convert("L"))
    assert (pixels < 250).mean() > 0.02
    border = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    assert (border > 250).all()


def test_bars_are_sorted_or_in_order_and_skip_classes_that_are_nowhere(tmp_path, drawn):
    FIGURES["class bars"](tmp_path / "a.svg")
    FIGURES["classes in order"](tmp_path / "b.svg")
    heights = [[bar.get_height() for bar in figure.axes[0].patches] for figure in drawn]
    assert heights == [[75, 50, 12.5], [50, 12.5, 75]]
    names = [[tick.get_text() for tick in figure.axes[0].get_xticklabels()] for figure in drawn]
    assert names == [["person", "dog", "cow"], ["dog", "cow", "person"]]
    levels = [figure.axes[0].lines[0].get_ydata()[0] for figure in drawn]
    assert levels == pytest.approx([(75 + 50 + 12.5) / 3, 40])
    assert {"mIoU 45.8", "mIoU 40.0"} <= {
        *comments(tmp_path / "a.svg"),
        *comments(tmp_path / "b.svg"),
    }


def test_many_classes_lie_on_their_side_with_the_best_on_top(tmp_path, drawn):
    FIGURES["many classes"](tmp_path / "a.svg")
    axes = drawn[0].axes[0]
    assert [bar.get_width() for bar in axes.patches][:2] == pytest.approx([89, 88])
    bottom, top = axes.get_ylim()
    assert bottom > top  # the first is at the top
    assert drawn[0].get_figheight() > 2 * drawn[0].get_figwidth()


def test_a_sweep_is_drawn_by_threshold_and_only_what_was_fixed_is_marked(tmp_path, drawn):
    FIGURES["sweep"](tmp_path / "a.svg")
    lines = drawn[0].axes[0].lines
    assert [line.get_label() for line in lines] == [
        "mIoU",
        "pixel accuracy",
        "fixed beforehand: 0.25",
    ]
    assert list(lines[0].get_xdata()) == [0, 0.25, 0.5]
    assert list(lines[0].get_ydata()) == [25, 37.5, 12.5]
    assert list(lines[1].get_ydata()) == [50, 62.5, 37.5]
    threshold_curve(SWEEP, tmp_path / "b.svg")
    assert len(drawn[1].axes[0].lines) == 2


def test_sweeps_of_two_models_have_their_own_lines(tmp_path, drawn):
    FIGURES["two sweeps"](tmp_path / "a.svg")
    axes = drawn[0].axes[0]
    assert len(axes.lines) == 4
    assert np.isnan(axes.lines[2].get_ydata()).all()
    assert "mIoU of other, names plain, protocol own" in comments(tmp_path / "a.svg")
    assert axes.lines[0].get_color() == axes.lines[1].get_color() != axes.lines[2].get_color()


def test_a_curve_has_error_bars_where_spreads_are_given(tmp_path, drawn):
    FIGURES["curve"](tmp_path / "a.svg")
    axes = drawn[0].axes[0]
    with_spread, without = axes.containers
    assert with_spread.has_yerr
    assert not without.has_yerr
    low, high = with_spread.lines[1]
    assert list(low.get_ydata()) == pytest.approx([24, 48, 34.5])
    assert list(high.get_ydata()) == pytest.approx([26, 52, 40.5])
    assert list(axes.get_xticks()) == [5, 10, 25]


def test_rankings_share_a_scale_and_keep_their_order(tmp_path, drawn):
    FIGURES["rankings"](tmp_path / "a.svg")
    first, second = drawn[0].axes
    assert first.get_xlim() == second.get_xlim()
    assert [bar.get_width() for bar in first.patches] == [50, 25, 0]
    assert [tick.get_text() for tick in first.get_yticklabels()] == ["a", "b", "c"]
    assert [note.get_text() for note in first.texts] == ["50.0", "25.0", "-"]
    assert first.get_ylim()[0] > first.get_ylim()[1]


@pytest.mark.parametrize("name", FIGURES)
def test_another_suffix_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match=r"figure\.jpg must end in \.png or \.svg"):
        FIGURES[name](tmp_path / "figure.jpg")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda path: class_bars({"dog": None}, "nothing", path), "nothing: no class has an IoU"),
        (lambda path: threshold_curve([ROW], path), "'none' has no threshold"),
        (lambda path: threshold_curve([], path), "no rows"),
        (lambda path: curve([], "x", "y", "empty", path), "empty: no series"),
        (lambda path: ranking_bars([], path), "no ranking"),
        (lambda _: Series("VOC", [1, 2], [0.5]), "VOC: 2 settings and 1 scores"),
        (lambda _: Series("VOC", [1, 2], [0.5, 0.5], [0.1]), "VOC: 2 settings and 1 spreads"),
        (lambda _: Series("VOC", [], []), "VOC: 0 settings"),
    ],
)
def test_nothing_to_draw_is_an_error(tmp_path, draw, message):
    with pytest.raises(ValueError, match=message):
        draw(tmp_path / "figure.svg")
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_picture(tmp_path, monkeypatch):
    path = FIGURES["class bars"](tmp_path / "figure.svg")
    before = path.read_bytes()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        FIGURES["classes in order"](path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_without_matplotlib_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def absent(name, *arguments, **keywords):
        if name.split(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(ValueError, match=r"pip install 'maskfree\[evaluate\]'"):
        FIGURES["class bars"](tmp_path / "figure.svg")
