"""Only rows that were measured in the same way share a ranking.

What keeps the others apart is named.
"""

import io
import json
import math
import re
from dataclasses import asdict, fields, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from painted import color_segmenter
from PIL import Image
from result_rows import ROW as A_ROW
from rich.console import Console

from maskfree.evaluation.protocol import Protocol, record
from maskfree.evaluation.reporting.compare import overview, panels, run, tables
from maskfree.evaluation.reporting.rankings import (
    conditions,
    differences,
    protocol_labels,
    rank_rows,
    refusal,
    titles,
)
from maskfree.evaluation.reporting.results import Row, write_json, write_row
from maskfree.evaluation.reporting.row_files import read_rows
from maskfree.evaluation.reporting.tables import short_rule
from maskfree.inference.config import Inference

OTHER = {  # another value for each field of a protocol; they differ among themselves too
    "names": "synonyms",
    "background": "threshold:0.4",
    "candidates": "unseen",
    "scored": "unseen",
    "side_px": 336,
    "max_long_px": 1024,
    "max_whole_px": 1,
    "window_px": 224,
    "stride_px": 112,
    "templates": ["a photo of a {}."],
    "score": "softmax",
    "logit_scale": 40.0,
    "top_classes": 3,
    "smooth": 3,
    "class_prior": 0.5,
    "class_prior_share": 0.2,
    "class_prior_max": 0.3,
    "refine": "pamr",
}

PRODUCT = record(
    replace(
        color_segmenter(),
        inference=Inference(score="product", logit_scale=30.0, smooth=1, class_prior=0.1),
    ),
    Protocol(),
)


def row(model="pocket", mean_iou=0.3, benchmark="voc20", **changes):
    """A row of a "product" protocol, in which every field acts.

    CHANGES are of the row or of its protocol.
    """
    in_row = {f.name for f in fields(Row)} & changes.keys()
    of_protocol = {name: value for name, value in changes.items() if name not in in_row}
    protocol = PRODUCT | {"templates": ["a {}", "the {}", "{}"]} | of_protocol
    whole = replace(
        A_ROW,
        benchmark=benchmark,
        protocol=protocol,
        model=model,
        mean_iou=mean_iou,
        mean_accuracy=0.45,
        command="maskfree evaluate voc20",
    )
    return replace(whole, **{k: changes[k] for k in in_row})


def text(*shown, width=200):
    console = Console(width=width, file=io.StringIO())
    with console.capture() as captured:
        console.print(*shown)
    return captured.get()


def test_a_ranking_is_by_mean_iou_with_nothing_last():
    (ranking,) = rank_rows([row("b", 0.2), row("d", None), row("c", 0.1), row("a", 0.3)])
    assert [each.model for each in ranking.rows] == ["a", "b", "c", "d"]


def test_every_field_of_a_protocol_has_another_value_here():
    assert OTHER.keys() == PRODUCT.keys()


@pytest.mark.parametrize("field", OTHER)
def test_rows_whose_protocols_differ_in_any_field_share_no_ranking(field):
    apart = rank_rows([row("a"), row("b", **{field: OTHER[field]})])
    assert [len(ranking.rows) for ranking in apart] == [1, 1]
    assert field in differences(apart)


def test_other_photos_and_other_names_share_no_ranking():
    for changes in ({"files_sha256": "e" * 64}, {"num_photos": 9}, {"names_sha256": "b" * 64}):
        apart = rank_rows([row("a"), row("b", **changes)])
        assert list(differences(apart)) == list(changes)


def test_what_is_not_a_condition_shares_a_ranking():
    others = [
        row("b"),
        row(weights_sha256="1" * 64),
        row(protocol_name="tcl"),
        row(date="2027"),
        row(versions={"a": "1"}),
    ]
    assert [len(ranking.rows) for ranking in rank_rows([row(), *others])] == [6]


def test_fields_that_another_one_switches_off_do_not_count():
    cosine = {"score": "cosine", "class_prior": 0.0}
    idle = {"logit_scale": 9.0, "top_classes": 2, "class_prior_share": 0.7}
    assert len(rank_rows([row(**cosine), row(**cosine, **idle)])) == 1
    assert len(rank_rows([row(score="softmax", top_classes=2), row(score="softmax")])) == 1
    apart = rank_rows([row(score="cosine"), row(logit_scale=40.0)])
    assert differences(apart) == {"score": ["cosine", "product"]}


@pytest.mark.parametrize(
    ("one", "same"),
    [
        ({"background": "threshold:.30"}, {"background": "threshold:0.3"}),
        ({"background": "words:sky, wall"}, {"background": "words:sky,wall"}),
        ({"templates": ["a {}"]}, {"templates": ("a {}",)}),
        ({"class_prior": 1}, {"class_prior": 1.0}),
    ],
)
def test_two_spellings_of_a_condition_are_the_same(one, same):
    assert len(rank_rows([row(**one), row(**same)])) == 1


def test_a_field_that_an_older_row_lacks_is_named():
    older = row()
    older = replace(older, protocol={k: v for k, v in older.protocol.items() if k != "refine"})
    assert differences(rank_rows([row("new"), older])) == {"refine": ["none", "not recorded"]}


def test_the_refusal_names_fields_and_values():
    words = "words:" + ",".join(f"thing {i}" for i in range(26))
    apart = rank_rows(
        [row(mean_iou=0.5), row(names="synonyms", names_sha256="b" * 64, background=words)]
    )
    assert (
        refusal(apart)
        == "not ranked together: names (plain | synonyms), background (none | words (26))"
    )
    assert refusal(rank_rows([row("a"), row("b")])) == ""


def test_values_that_look_alike_in_brief_get_a_hash():
    many = [f"a {{}} {i}" for i in range(3)]
    (values,) = differences(rank_rows([row(), row(templates=many)])).values()
    assert all(value.startswith("3 of them ") for value in values)
    assert len(set(values)) == 2


def test_benchmarks_are_apart_and_their_largest_ranking_is_first():
    rows = [
        row(mean_iou=0.9, side_px=336),
        row("a"),
        row("b"),
        row(benchmark="camvid", mean_iou=0.1),
    ]
    assert [(r.benchmark, len(r.rows)) for r in rank_rows(rows)] == [
        ("camvid", 1),
        ("voc20", 2),
        ("voc20", 1),
    ]


def test_rankings_are_not_themselves_ranked():
    for low, high in ((0.1, 0.2), (0.2, 0.1)):
        rows = [row(mean_iou=low, background="threshold:0.4"), row(mean_iou=high)]
        assert [r.conditions["background"] for r in rank_rows(rows)] == ["none", "threshold:0.4"]


def cells(*shown, width=200):
    """Cells of each line of a table without frames; none for other lines."""
    lines = text(*shown, width=width).splitlines()
    return [re.split(r" {2,}", line.strip()) for line in lines if not set(line) <= set(" ─")]


def test_the_overview_has_all_rows_by_benchmark_and_mean_iou():
    rows = [
        row("a", 0.2),
        row("b", 0.4, names="synonyms", background="threshold:0.25"),
        row("c", 0.3),
        row("d", 0.1, benchmark="camvid", background="words:a,b,c,d"),
        row("e", None, benchmark="camvid", background="words:a,b,c,d"),
    ]
    heading, *lines, note = cells(*overview(rank_rows(rows)))
    assert heading == [
        *("benchmark", "model", "protocol", "names", "background", "mIoU", "accuracy")
    ]
    assert lines == [
        ["camvid", "d", "own", "plain", "words (4)", "10.0", "60.4"],
        ["camvid", "e", "own", "plain", "words (4)", "-", "60.4"],
        ["voc20", "b", "own", "synonyms", "threshold:0.25", "40.0", "60.4"],
        ["voc20", "c", "own", "plain", "none", "30.0", "60.4"],
        ["voc20", "a", "own", "plain", "none", "20.0", "60.4"],
    ]
    assert "5 rows by 3 protocols: only rows that agree in benchmark, protocol" in " ".join(note)


def test_the_overview_of_one_protocol_names_none():
    heading, *_, note = cells(*overview(rank_rows([row("a"), row("b"), row(benchmark="camvid")])))
    assert "protocol" not in heading
    assert "may be ranked" in " ".join(note) and "differences" not in " ".join(note)


def test_protocols_that_look_alike_have_a_hash():
    several = [row("a"), row("b", smooth=5), row("c", protocol_name="tcl", side_px=336)]
    labels = protocol_labels(rank_rows(several))
    own = [label for label in labels if re.fullmatch("own [0-9a-f]{4}", label)]
    assert len(set(own)) == 2 and {*labels} - {*own} == {"tcl"}

    # The hash depends on the conditions alone.
    (same,) = {*protocol_labels(rank_rows([row("d", smooth=5.0), row("e", smooth=7)]))} & {*own}
    assert same in own


def test_models_of_one_name_are_told_apart_by_their_weights():
    shown = text(*overview(rank_rows([row("a"), row("a", weights_sha256="1" * 64), row("b")])))
    assert "a a1b2c3d4" in shown and "a 11111111" in shown and "b a1b2c3d4" not in shown


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_narrow_terminal_cuts_nothing(width):
    rows = [row("a model of a long name", 0.1234), row(names="synonyms", protocol_name="tcl")]
    shown = text(*overview(rank_rows(rows)), width=width)
    assert all(len(line) <= width for line in shown.splitlines())
    assert {"12.3", "30.0", "mIoU", "accuracy"} <= set(shown.split()) and "…" not in shown


def test_titles_tell_the_rankings_of_a_benchmark_apart():
    rankings = rank_rows([row("a"), row("b"), row(side_px=336), row(benchmark="camvid")])
    _, first, second = protocol_labels(rankings)
    assert titles(rankings) == [
        "camvid, 7 photos, protocol own, names: plain, background: none",
        f"voc20, 7 photos, protocol {first}, names: plain, background: none, side_px: 448",
        f"voc20, 7 photos, protocol {second}, names: plain, background: none, side_px: 336",
    ]
    assert [panel.title for panel in panels(rankings)] == titles(rankings)


SETTINGS = st.fixed_dictionaries(
    {
        "side_px": st.sampled_from([336, 448]),
        "background": st.sampled_from(["none", "threshold:0.3", "words:sky,wall"]),
        "templates": st.sampled_from([["a {}"], ["a {}", "the {}"]]),
        "mean_iou": st.sampled_from([None, 0.0, 0.25, 0.5]),
        "files_sha256": st.sampled_from(["e" * 64, "f" * 64]),
    }
)


@given(st.lists(SETTINGS, min_size=1, max_size=12))
def test_rankings_hold_each_row_once_and_never_mix_conditions(settings):
    rows = [row(f"model {i}", **each) for i, each in enumerate(settings)]
    rankings = rank_rows(rows)
    assert sorted(r.model for ranking in rankings for r in ranking.rows) == sorted(
        r.model for r in rows
    )
    for ranking in rankings:
        assert all(conditions(each) == conditions(ranking.rows[0]) for each in ranking.rows)
        known = [-math.inf if each.mean_iou is None else each.mean_iou for each in ranking.rows]
        assert known == sorted(known, reverse=True)
    shared = [str(sorted(conditions(ranking.rows[0]).items(), key=str)) for ranking in rankings]
    assert len(set(shared)) == len(shared)
    assert bool(differences(rankings)) == (len(rankings) > 1)
    assert len(set(titles(rankings))) == len(rankings)
    labels = zip(rankings, protocol_labels(rankings), strict=True)
    shown = {(label, short_rule(ranking.conditions["background"])) for ranking, label in labels}
    assert len(shown) == len(rankings)


def test_tables_show_scores_classes_side_by_side_and_the_refusal():
    rows = [
        row("a", 0.301, iou={"dog": 0.11, "cow": 0.22}),
        row("b", 0.25, boundary_f=0.125),
        row("c", side_px=336),
    ]
    shown = text(*tables(rank_rows(rows)))
    first = next(line for line in shown.splitlines() if "│ 1 │ a" in line)
    assert [cell.strip() for cell in first.strip("│").split("│")] == [
        *("1", "a", "a1b2c3d4", "30.1", "60.4", "45.0", "51.2", "-", "0.25")
    ]
    assert "12.5" in shown
    dog = next(line for line in shown.splitlines() if "dog" in line)
    assert [cell.strip() for cell in dog.strip("│").split("│")] == ["dog", "11.0", "50.0"]
    assert shown.count("IoU by class") == 1  # one row alone has nothing beside it
    assert "voc20: not ranked together: side_px (448 | 336)" in shown


def test_published_numbers_stand_apart_with_their_source():
    ours = rank_rows([row("a")])
    assert "as published" not in text(*tables(ours))
    shown = text(*tables(ours, published=True))
    assert "voc20: as published, each by its own protocol; not ranked with the rows above" in shown
    assert shown.index("30.0") < shown.index("as published") < shown.index("34.42")
    assert "arXiv:2207.08455, Table 1" in shown
    assert "coco-mini: no published" in text(
        *tables(rank_rows([row(benchmark="coco-mini")]), published=True)
    )


def test_other_files_of_a_results_folder_are_skipped_by_kind(tmp_path):
    ours = write_row(row(), tmp_path)
    old = write_json({"format": 1, "mean_iou": 0.1, "protocol": {}}, tmp_path / "old.json")
    speed = write_json(
        {"format": 1, "benchmark": "loader", "ratios": []}, tmp_path / "benchmark-loader.json"
    )
    history = write_json(
        {"history": "pocket", "rows": [{"mean_iou": 1}]}, tmp_path / "history-pocket.json"
    )
    several = write_json([1, 2], tmp_path / "list.json")
    sweep = write_json(
        {"format": 2, "kind": "sweep", "rows": [asdict(row())]}, tmp_path / "sweep.json"
    )
    rows, skipped = read_rows([speed, ours, old, history, several, sweep, ours])
    assert rows == [row()]
    assert skipped == {
        "no row of results": ["benchmark-loader.json", "history-pocket.json", "list.json"],
        "row of another format than 2": ["old.json"],
        "sweep, not a row": ["sweep.json"],
    }


WHOLE = {"format": 2, **asdict(row())}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({k: v for k, v in WHOLE.items() if k != "iou"}, "no results row"),
        (WHOLE | {"protocol": {"names": "plain"}}, "does not say its protocol"),
        (WHOLE | {"protocol": row(background="sky").protocol}, "background rule 'sky' is unknown"),
        (WHOLE | {"protocol": row(background=None).protocol}, "broken.json"),
        (WHOLE | {"mean_iou": 38.3}, "mean_iou is 38.3, not a score"),
        (WHOLE | {"mean_iou": "0.3"}, "mean_iou is '0.3', not a score"),
        (WHOLE | {"iou": {"dog": -0.5}}, "dog is -0.5, not a score"),
        (WHOLE | {"iou": [0.5]}, "iou must be a value for each class"),
    ],
)
def test_a_broken_row_is_an_error(tmp_path, content, message):
    good, broken = write_row(row(), tmp_path), write_json(content, tmp_path / "broken.json")
    with pytest.raises(ValueError, match=rf"broken\.json.*{message}|{message}"):
        read_rows([good, broken])


def test_a_file_that_is_no_json_is_an_error(tmp_path):
    path = tmp_path / "half.json"
    path.write_text(json.dumps(WHOLE)[:-20])
    with pytest.raises(ValueError, match=r"half\.json is no JSON"):
        read_rows([path])


def test_the_command_prints_and_draws(tmp_path):
    files = [write_row(each, tmp_path) for each in (row("a"), row("b", 0.2), row("a", side_px=336))]
    speed = write_json({"benchmark": "loader"}, tmp_path / "benchmark-loader.json")
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        assert run([*files, speed], tmp_path / "new" / "ranks.png", False, console) == 0
    shown = captured.get()
    assert shown.count("mIoU") == 1 and "3 rows by 2 protocols" in shown
    assert "skipped (no row of results: benchmark-loader.json)" in shown
    with Image.open(tmp_path / "new" / "ranks.png") as picture:
        assert picture.width > 1000


def test_the_command_shows_rankings_and_published_numbers_on_request(tmp_path):
    files = [write_row(each, tmp_path) for each in (row("a"), row("b", side_px=336))]
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        assert run(files, None, False, console, differences=True) == 0
        assert run(files, None, True, console) == 0
    shown = captured.get()
    assert len(re.findall(r"side_px \((448 \| 336|336 \| 448)\)", shown)) == 1
    assert shown.index("not ranked together") < shown.index("2 rows by 2") < shown.index("34.42")


def test_many_skipped_files_are_counted(tmp_path):
    ours = write_row(row(), tmp_path)
    others = [write_json({}, tmp_path / f"other-{i}.json") for i in range(5)]
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        run([ours, *others], None, False, console)
    assert "skipped (no row of results: other-0.json and 4 more)" in captured.get()


def test_settings_of_another_kind_of_protocol_are_named_without_values():
    probe = row("b", protocol_name="knn")
    kept = {name: probe.protocol[name] for name in ("names", "background")}
    probe = replace(probe, protocol=kept | {"neighbors": 15})
    rankings = rank_rows([row("a"), probe])
    assert "not recorded" not in " ".join([refusal(rankings), *titles(rankings)])
    assert "settings that not all rows record (candidates, scored, " in refusal(rankings)
    assert titles(rankings)[1].endswith("neighbors: 15")


def test_the_command_needs_a_row(tmp_path):
    console = Console(file=io.StringIO())
    with pytest.raises(ValueError, match="give the files"):
        run([], None, False, console)
    speed = write_json({"benchmark": "loader"}, tmp_path / "benchmark-loader.json")
    with pytest.raises(
        ValueError,
        match=r"no rows of results to compare; no row of results: benchmark-loader\.json",
    ):
        run([speed], None, False, console)


def test_a_wrong_picture_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"ranks\.jpg must end in \.png or \.svg"):
        run([tmp_path / "absent.json"], tmp_path / "ranks.jpg", False, Console(file=io.StringIO()))
