"""The published numbers are those of their sources, each with what is known of its protocol."""

import io
import json
import math
from collections import Counter
from importlib.resources import files

import pytest
from rich.console import Console

from maskfree.data.benchmarks.catalog import BENCHMARKS
from maskfree.evaluation.reporting.published import (
    NOT_PERCENT,
    Published,
    published,
    published_for,
    tables,
)

KNOWN = {"name", "background", "classes", "resolution", "supervision", "data", "self training"}
ELSEWHERE = {"context", "any", "mean", "mean of 5", "mean of 8", "davis-2017", "ade847"}
T1, T2, OV1 = "arXiv:2207.08455, Table 1", "arXiv:2207.08455, Table 2", "arXiv:2301.09121, Table 1"
ACC = "pixel accuracy"
SPOTS = [  # typed from the sources by hand, a second time
    (T1, "SPNet", "context59", "mIoU", "unseen", 4.00),
    (T1, "CaGNet (pa)", "voc20", ACC, "unseen", 51.76),
    (T1, "ViL-Seg, ViT-B/16", "voc20", "mIoU", "unseen", 34.42),
    (T1, "ViL-Seg, ViT-B/16", "coco-stuff", ACC, "unseen", 32.58),
    (T1, "ViL-Seg + ST, ViT-B/16", "context59", ACC, "unseen", 50.14),
    (T2, "ViL-Seg w/o L_vision", "context59", "mIoU", "all-as-unseen", 13.14),
    (T2, "Offline (K-means)", "any", "photos/s", "all-as-unseen", 8.5),
    (T2, "ViL-Seg", "voc20", ACC, "all-as-unseen", 75.97),
    (
        "arXiv:2207.08455, text on Fig. 6",
        "ViL-Seg",
        "voc20",
        "classes with IoU above 20 %",
        "all-as-unseen",
        14,
    ),
    (OV1, "OVSegmentor, ViT-B", "voc21", "mIoU", "zero-shot", 53.8),
    (OV1, "OVSegmentor, ViT-S", "ade20k", "mIoU", "zero-shot", 4.3),
    (OV1, "DeiT, ViT-S", "context60", "mIoU", "fine-tuned", 35.9),
    ("arXiv:2301.09121, Table 2", "OVSegmentor", "context59", "mIoU", "unseen", 54.5),
    (
        "arXiv:2301.09121, Table 3",
        "OVSegmentor with L_entity alone",
        "context60",
        "mIoU",
        "zero-shot",
        19.9,
    ),
    (
        "arXiv:2301.09121, Table 4",
        "OVSegmentor, MLM without groups",
        "voc21",
        "mIoU",
        "zero-shot",
        36.3,
    ),
    (
        "arXiv:2301.09121, Table 5",
        "OVSegmentor, 16 groups, ratio 1",
        "voc21",
        "mIoU",
        "zero-shot",
        42.9,
    ),
    (
        "arXiv:2301.09121, Table 7",
        "OVSegmentor (CC4M)",
        "coco-object",
        "mIoU",
        "unseen entities",
        25.9,
    ),
    ("arXiv:2301.09121, Table 7", "OVSegmentor (CC12M)", "ade20k", "mIoU", "seen entities", 10.1),
    (
        "arXiv:2305.01040, Table 2",
        "CLIP-S4, CLIP ViT-B/16",
        "coco-stuff",
        "mIoU",
        "zero-shot",
        22.1,
    ),
    (
        "arXiv:2305.01040, Table 3",
        "CLIP-S4",
        "context59",
        "harmonic mean",
        "class-free, fold 3",
        30.0,
    ),
    ("arXiv:2305.01040, Table 4", "MaskContrast (Sup.)", "voc21", "mIoU", "linear probe", 63.9),
    ("arXiv:2305.01040, Table 5", "mgPFF", "davis-2017", "boundary accuracy F", "tracking", 46.9),
    ("SCLIP's README", "SCLIP, B", "cityscapes", "mIoU", "zero-shot", 32.3),
    ("CorrCLIP's README, v2", "CorrCLIPv2, L, COCO bank", "mean of 8", "mIoU", "zero-shot", 59.5),
    ("TIPSv2's README", "TIPSv2, L/14", "ade20k", "mIoU", "zero-shot", 24.7),
]


def key(row):
    return (row.source, row.method, row.benchmark, row.metric, row.protocol["name"])


@pytest.mark.parametrize(("source", "method", "benchmark", "metric", "protocol", "value"), SPOTS)
def test_numbers_are_those_of_the_source(source, method, benchmark, metric, protocol, value):
    (row,) = [
        row for row in published() if key(row) == (source, method, benchmark, metric, protocol)
    ]
    assert row.value == value


def test_each_number_is_there_once_with_its_source_and_protocol():
    assert max(Counter(map(key, published())).values()) == 1
    for row in published():
        assert row.source, row
        assert row.protocol.keys() <= KNOWN, row
        assert row.protocol["supervision"], row
        assert row.benchmark in {*(each.name for each in BENCHMARKS.values()), *ELSEWHERE}, row
        assert (row.trust == "paper") == row.source.startswith("arXiv:"), row
        assert math.isfinite(row.value) and 0 < row.value <= 100, row
        assert row.spread is None or 0 < row.spread < 1, row


def test_whole_tables_are_there():
    sources = Counter(row.source for row in published())
    counts = {T1: 6 * 6 + 5 * 3, T2: 3 * 6 + 4, "arXiv:2305.01040, Table 3": 3 * 12}
    counts |= {"arXiv:2305.01040, Table 5": 2 * 11, "CorrCLIP's README, v2": 6 * 9}
    assert {source: sources[source] for source in counts} == counts


def test_a_mean_of_eight_is_that_of_the_rows_it_stands_with():
    whole = [row for row in published() if row.benchmark == "mean of 8"]
    checked = 0
    for mean in whole:
        parts = [
            row.value
            for row in published()
            if (row.source, row.method) == (mean.source, mean.method)
            and row.benchmark != "mean of 8"
        ]
        if len(parts) == 8:
            checked += 1
            assert mean.value == pytest.approx(sum(parts) / 8, abs=0.11), mean
    assert checked >= 15


def test_harmonic_means_are_those_of_their_parts():
    rows = {
        (row.method, row.protocol["name"], row.metric): row.value
        for row in published()
        if "Table 3" in row.source
    }
    for (method, fold, metric), value in rows.items():
        if metric == "harmonic mean":
            unknown, known = (
                rows[method, fold, f"mIoU of {part} classes"] for part in ("unknown", "known")
            )
            assert value == pytest.approx(2 * unknown * known / (unknown + known), abs=0.11), (
                method,
                fold,
            )


def test_rows_of_a_benchmark_include_those_that_may_be_of_it():
    assert {row.benchmark for row in published_for("context60")} == {"context60", "context"}
    assert {row.benchmark for row in published_for("voc20")} == {"voc20"}
    assert published_for("coco-mini") == []


def test_numbers_are_shown_as_printed():
    shown = {key(row): row.shown for row in published()}
    assert shown[T1, "ViL-Seg, ViT-B/16", "voc20", "mIoU", "unseen"] == "34.42"
    assert (
        shown[
            "arXiv:2305.01040, Table 3",
            "CLIP-S4",
            "context59",
            "harmonic mean",
            "class-free, fold 0",
        ]
        == "30.6 ± 0.5"
    )
    assert shown[T2, "ViL-Seg", "any", "parameters, million", "all-as-unseen"] == "86.27"
    assert {row.metric for row in published() if row.metric in NOT_PERCENT} == set(NOT_PERCENT)


def test_tables_say_once_what_all_numbers_of_a_source_share():
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(*tables(published_for("voc20")))
    lines = captured.get().splitlines()
    head = next(line for line in lines if line.startswith(T1))
    assert head.startswith(f"{T1}: unseen; classes: 5 of 20; Candidate classes")
    table = lines[lines.index(head) :]
    full = next(line for line in table if "ViL-Seg + ST" in line)
    assert [cell.strip() for cell in full.strip("│").split("│")] == [
        *(
            "ViL-Seg + ST, ViT-B/16",
            "37.3",
            "85.62",
            "supervision: image-text pairs, CC12M; self training: yes",
        )
    ]
    assert sum("5 of 20" in line for line in lines) == 2  # here and in OVSegmentor's Table 2


def test_tables_name_the_protocol_by_column_where_a_source_has_several():
    console = Console(width=160, file=io.StringIO())
    with console.capture() as captured:
        console.print(
            *tables(
                [row for row in published_for("voc21") if row.source.endswith("01040, Table 4")]
            )
        )
    shown = captured.get()
    assert "mIoU, nearest neighbors" in shown
    row = next(line for line in shown.splitlines() if "IIC" in line)
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["IIC", "28.0", "-"]


def test_what_others_report_is_in_one_table_with_its_source():
    console = Console(width=200, file=io.StringIO())
    with console.capture() as captured:
        console.print(*tables(published_for("cityscapes")))
    lines = captured.get().splitlines()
    assert sum("other sources, zero-shot" in line for line in lines) == 1
    assert "SCLIP's README" in next(line for line in lines if "SCLIP, B" in line)
    assert "wizwand (third-party)" in next(line for line in lines if "Trident, best" in line)


def test_self_training_is_told():
    told = [row for row in published() if row.value == 37.3 and "ViL-Seg" in row.method]
    assert len(told) == 2
    assert all("self training: yes" in row.facts for row in told)


def test_an_unknown_kind_of_source_is_refused():
    with pytest.raises(ValueError, match="trust is 'rumour'"):
        Published("x", "voc20", "mIoU", 1.0, None, "somewhere", "rumour")  # pyright: ignore[reportArgumentType]


def test_every_row_of_the_file_has_a_value_for_each_column():
    for table in json.loads(
        files("maskfree.evaluation.reporting")
        .joinpath("published.json")
        .read_text(encoding="utf-8")
    ):
        for row in table["rows"]:
            assert len(row["values"]) == len(table["columns"]), (table["source"], row["method"])
