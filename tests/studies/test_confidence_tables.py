from __future__ import annotations

from studies.tables.rest import calibration, few_words


def test_few_words_have_a_line_for_each_number_and_a_column_for_each_rule():
    rows = []
    for benchmark, photos in (("camvid", 7), ("coco-mini", 9)):
        for words in (1, 2):
            for rule, iou in (("none", 0.1 * words), ("scene", 0.25)):
                rows.append(
                    {
                        "benchmark": benchmark,
                        "photos": photos,
                        "words": words,
                        "rule": rule,
                        "mean_iou": iou,
                    }
                )
    table = few_words([{"benchmark": "few-words", "rows": rows}, {"benchmark": "camvid"}])
    lines = table.splitlines()
    assert lines[0] == "| photos | words | none | scene |"
    assert lines[2] == "| camvid, 7 photos | 1 | 10.0 | 25.0 |"
    assert lines[5] == "| coco-mini, 9 photos | 2 | 20.0 | 25.0 |"
    assert "python benchmarks/few_words.py" in few_words([])


def test_calibration_is_told_before_and_after():
    row = {
        "kind": "calibration",
        "model": "tiny",
        "own_temperature": 0.0581,
        "temperature": 0.0741,
        "held_out": {"photos": 5, "ece": {"own": 0.2, "fitted": 0.1}},
        "masks": {"camvid": {"photos": 3, "ece": {"own": 0.4, "fitted": 0.3}}},
    }
    lines = calibration([row, {"kind": "retrieval"}]).splitlines()
    assert lines[2:] == [
        "| tiny | captions of other photos | 5 | 0.058 | 0.074 | 20.0 | 10.0 |",
        "| tiny | camvid | 3 | 0.058 | 0.074 | 40.0 | 30.0 |",
    ]
