"""A row of results as the tests need it; they change what matters to them."""

from maskfree.evaluation.reporting.results import Row

ROW = Row(
    benchmark="voc21",
    num_photos=7,
    files_sha256="f" * 64,
    names_file="voc20.txt",
    names_sha256="a" * 64,
    protocol_name="own",
    protocol={"names": "plain", "background": "threshold:0.25"},
    model="pocket",
    weights_sha256="a1b2c3d4" + "0" * 56,
    mean_iou=0.301,
    pixel_accuracy=0.604,
    mean_accuracy=None,
    frequency_weighted_iou=0.512,
    boundary_f=None,
    iou={"dog": 0.5, "sheep": None},
    parts={},
    confusions=[],
    seconds_per_photo=0.25,
    command="maskfree evaluate voc21",
    date="2026-01-01T00:00:00+00:00",
    versions={},
    machine={},
)
