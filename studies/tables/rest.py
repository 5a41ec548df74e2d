"""Tables of the bundled model, of the scripts in benchmarks/, and of what was tried on the way."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from maskfree.data.benchmarks.catalog import benchmark
from maskfree.inference.config import Inference
from maskfree.text.tags import IMAGENET_TAGS, kinds_of, read_tags
from studies.tables.markup import ROOT, Row, history, markdown, missing, percent, pictures

_CALIBRATION = "python -m studies calibration --data ../shared/data"


def card(_: Sequence[Row]) -> str:
    """What the bundled model is, from its own folder."""
    folder = ROOT / "src" / "maskfree" / "pocket"
    if not folder.is_dir():
        return missing("maskfree train vilseg_pocket")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    weights = (folder / "weights.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    values = sum(
        math.prod(t["shape"])
        for name, t in header.items()
        if "shape" in t and not name.endswith("::scale")
    )
    size = sum(path.stat().st_size for path in folder.iterdir())
    config, train = run["config"], run["settings"]["train"]
    used = Inference(**run["inference"])
    lines = [
        ("method", f"`{run['method'].removesuffix('Config')}`, regions: {config['grouping']}"),
        (
            "image encoder",
            f"{config['image']['family']}, output stride {config['image']['output_stride']}",
        ),
        ("tag scores", _tag_scores(config.get("tag_scores"))),
        (
            "text encoder",
            config["text"]["family"] + (", frozen" if config["text"]["frozen"] else ""),
        ),
        (
            "projection of pixels and of texts",
            f"{config['image_projection']['kind']}, {config['text_projection']['kind']}",
        ),
        ("embedding", f"{config['embed_dim']} dimensions"),
        ("scores", f"`smooth` {used.smooth}; `class_level` {used.class_level:g}"),
        ("parameters", f"{values / 1e6:.1f} million, stored as {run['storage']}"),
        ("size in the package", f"{size / 1e6:.1f} MB"),
        ("training", _schedule(run["steps"], train)),
        ("prompts", "; ".join(f"`{template}`" for template in run["templates"])),
        ("weights, SHA-256", f"`{hashlib.sha256(weights).hexdigest()}`"),
    ]
    return markdown(("", ""), lines, "ll", "")


def _tag_scores(config: dict[str, Any] | None) -> str:
    """Classifier and concept head whose scores are added to the cosines."""
    if config is None:
        return "none"
    return (
        f"{config['image']['family']}, {config['num_tags']:,} classes; "
        f"a head of {config['num_concepts']} concepts"
    )


def kinds(_: Sequence[Row]) -> str:
    """How many kinds the classifier's tags have, and which names of coco-mini's classes are among
    them.
    """
    tags = read_tags(IMAGENET_TAGS)
    told = set(kinds_of(tags))
    names, synonyms = (benchmark("coco-mini").words(name_set) for name_set in ("plain", "synonyms"))
    others = [
        (name, told & set(s.split("/")))
        for name, s in zip(names, synonyms, strict=True)
        if name not in told
    ]
    by_synonym = [f"{name} (as {' and '.join(sorted(found))})" for name, found in others if found]
    absent = [name for name, found in others if not found]
    return (
        f"Of the {len(tags):,} tags, {sum(bool(tag.kinds) for tag in tags)} "
        f"have kinds, {len(told)} different ones. "
        f"Among them are {len(names) - len(others)} of the {len(names)} "
        "class names of `coco-mini`, and by a synonym "
        f"{', '.join(by_synonym) or 'no others'}; absent: {', '.join(absent) or 'none'}."
    )


def overlays(_: Sequence[Row]) -> str:
    """The label maps that `docs/pictures.py --data` made, best first."""
    files = sorted((ROOT / "docs" / "images").glob("best-*.jpg")) + sorted(
        (ROOT / "docs" / "images").glob("worst-*.jpg")
    )
    lines = [
        f"![{file.stem.replace('-', ' ')}: ours, the truth](../images/{file.name})"
        for file in files
    ]
    return "\n\n".join(lines) or missing("python docs/pictures.py --data FOLDER")


def tried(rows: Sequence[Row]) -> str:
    """What was tried for the bundled model: history."""
    points, source = history(rows, "pocket")
    figures = [
        (part, figure)
        for part in ("names", "synonyms")
        for figure in ("mean_iou", "pixel_accuracy")
    ]
    lines = [
        (
            point["tried"],
            *(percent(point[part].get(figure)) for part, figure in figures),
            point["kept"],
        )
        for point in points
    ]
    scored = (
        f"{names}: {figure} %"
        for names in ("plain", "synonyms")
        for figure in ("mIoU", "pixel accuracy")
    )
    return f"{markdown(('tried', *scored, 'kept'), lines, 'lrrrrl', '')}\n\n{source}"


def allocator(rows: Sequence[Row]) -> str:
    """What glibc's allocator costs in training: history."""
    points, source = history(rows, "allocator")
    lines = [(point["work"], f"{point['usual']:g}", f"{point['tuned']:g}") for point in points]
    header = ("work", "as usual, photos/s", "with the variables, photos/s")
    return f"{markdown(header, lines, 'lrr', '')}\n\n{source}"


def speed(rows: Sequence[Row]) -> str:
    """Ratios of the scripts in benchmarks/, with the target each was given."""
    lines = [
        (
            row["benchmark"],
            ratio["name"],
            f"{ratio['value']:.2f} {ratio['unit']}",
            ratio["target"] or "–",
            {True: "met", False: "missed", None: "–"}[ratio["met"]],
        )
        for row in rows
        for ratio in row.get("ratios", ())
    ]
    header = ("benchmark", "measured", "value", "target", "")
    return markdown(header, lines, "llrll", "python benchmarks/inference.py")


def growth(rows: Sequence[Row]) -> str:
    """CPU seconds and peak memory over words, pixels and photos, with their chart."""
    lines = [
        (
            f"{point['size']:g} {point['of']}",
            point["step"],
            f"{1000 * point['seconds']:.1f}",
            f"{point['peak_gigabytes']:.2f}",
        )
        for row in rows
        if row.get("benchmark") == "growth"
        for point in row["rows"]
    ]
    command = "python benchmarks/growth.py"
    header = ("size", "step", "CPU milliseconds", "peak memory, GB")
    chart = pictures({"growth.svg": "Cost over words, pixels and photos"}, command)
    return f"{markdown(header, lines, 'llrr', command)}\n\n{chart}"


def precision(rows: Sequence[Row]) -> str:
    """Number formats: time, labels that change against fp32, and scores where they were
    measured.
    """
    lines = [
        (
            point["format"],
            f"{1000 * point['seconds']:.0f}",
            str(point["photos"]),
            f"{100 * point['labels_changed']:.2f}",
            f"{100 * point['labels_changed_most']:.2f}",
            percent(point.get("coco_mini_miou")),
            percent(point.get("coco_mini_pixel_accuracy")),
        )
        for row in rows
        if row.get("benchmark") == "precision"
        for point in row["rows"]
    ]
    header = (
        "format",
        "ms a photo",
        "photos",
        "labels changed %",
        "at most on a photo %",
        "mIoU %",
        "pixel accuracy %",
    )
    return markdown(header, lines, "lrrrrrr", "python benchmarks/precision.py --data FOLDER")


def runtimes(rows: Sequence[Row]) -> str:
    """Runtimes of the image side: labels and scores beside torch's."""
    lines = []
    for row in rows:
        if row.get("benchmark") != "runtimes":
            continue
        for point in row["rows"]:
            lines.append(
                (
                    point["benchmark"],
                    point["runtime"],
                    str(point["photos"]),
                    f"{1000 * row['seconds'][point['runtime']]:.0f}",
                    f"{100 * point['labels_equal']:.4f}",
                    f"{100 * point['mean_iou']:.2f}",
                )
            )

    header = ("benchmark", "runtime", "photos", "CPU ms a photo", "labels equal %", "mIoU %")
    return markdown(header, lines, "llrrrr", "python benchmarks/runtimes.py")


def collapse(rows: Sequence[Row]) -> str:
    """What becomes of the answers under the literal and the working form of the
    vision-based loss.
    """
    curves: dict[str, dict[int, Row]] = {"literal": {}, "distillation": {}}
    for row in rows:
        if row.get("benchmark") == "collapse":
            for point in row["rows"]:
                curves[point["form"]][point["step"]] = point
    lines = [
        (
            str(step),
            *(
                f"{curves[form][step][figure]:.2f}"
                for form in curves
                for figure in ("loss", "mean_entropy", "entropy")
            ),
        )
        for step in sorted(set(curves["literal"]) & set(curves["distillation"]))
    ]
    header = (
        "step",
        *(
            f"{form}: {figure}"
            for form in ("literal", "working")
            for figure in ("loss", "all", "one")
        ),
    )
    return markdown(
        header,
        lines,
        "r" * len(header),
        "python benchmarks/collapse.py --shard FILE --weights FOLDER",
    )


def gpu(rows: Sequence[Row]) -> str:
    """Memory and photos a second of training steps at full size on a GPU."""
    checks = [row for row in rows if row.get("benchmark") == "gpu-check"]
    lines = [
        (
            f"`{each['recipe']}`",
            f"{each['millions_of_parameters']:.0f}",
            str(each["photos"]),
            f"{each['peak_gigabytes']:.1f}",
            f"{each['photos_per_second']:.0f}",
        )
        for check in checks
        for each in check["rows"]
    ]
    header = ("recipe", "millions of parameters", "photos a step", "peak, GB", "photos a second")
    table = markdown(header, lines, "lrrrr", "make gpu-check")
    if not checks:
        return table
    settings = checks[0]["settings"]
    return f"{table}\n\nOn an {settings['device']}, {settings['precision']}."


def tracking(rows: Sequence[Row]) -> str:
    """Label propagation by the bundled model, sequence by sequence."""
    figures = ("j_mean", "j_recall", "j_decay", "f_mean", "f_recall", "f_decay")
    found = [row for row in rows if row.get("kind") == "tracking" and row["model"] == "pocket"]
    lines = [
        (part["sequence"], str(part["frames"]), *(percent(part[figure]) for figure in figures))
        for row in found
        for part in row["rows"]
    ]
    names = (f"{measure} {figure} %" for measure in "JF" for figure in ("mean", "recall", "decay"))
    return markdown(
        ("sequence", "frames", *names), lines, "lrrrrrrr", "maskfree evaluate tracking DAVIS"
    )


def tracking_words(rows: Sequence[Row]) -> str:
    """Segmentation of videos by words: J of the object that they name, sequence by sequence."""
    found = [row for row in rows if row.get("kind") == "tracking-words"]
    sequences = list(dict.fromkeys(part["sequence"] for row in found for part in row["rows"]))

    lines = []
    for row in sorted(found, key=lambda row: (row["model"], row["every"])):
        labeled = f"every {row['every']}" if row["every"] else "the first"
        parts = {part["sequence"]: part for part in row["rows"]}
        j_means = (percent(parts[name]["j_mean"]) for name in sequences)
        lines.append((row["model"], labeled, *j_means, percent(parts["overall"]["f_mean"])))

    header = ("model", "labeled frames", *(f"J of {name} %" for name in sequences[:-1]))
    header += ("J overall %", "F overall %")
    return markdown(
        header, lines, "ll" + "r" * (len(header) - 2), "maskfree evaluate tracking DAVIS --by-words"
    )


def retrieval(rows: Sequence[Row]) -> str:
    """Photos and captions that find each other, a line for each model."""
    lines = []
    for row in rows:
        if row.get("kind") != "retrieval":
            continue
        counts = (f"{row['num_photos']:,}", f"{row['num_captions']:,}")
        recalls = (
            percent(direction[f"recall_{most}"]) for direction in row["rows"] for most in (1, 5, 10)
        )
        lines.append((row["model"], *counts, str(row["protocol"]["side_px"]), *recalls))

    header = ("model", "photos", "captions", "side px")
    header += ("photo to caption: R@1 %", "R@5 %", "R@10 %")
    header += ("caption to photo: R@1 %", "R@5 %", "R@10 %")
    return markdown(header, lines, "l" + "r" * 9, "maskfree evaluate retrieval SHARD --side-px 224")


def few_words(rows: Sequence[Row]) -> str:
    """Mean IoU of one or two words under each background rule."""
    measured = [row for row in rows if row.get("benchmark") == "few-words"]
    found: dict[tuple[str, int], dict[str, float]] = {}
    for row in measured:
        for line in row["rows"]:
            key = f"{line['benchmark']}, {line['photos']} photos", line["words"]
            found.setdefault(key, {})[line["rule"]] = line["mean_iou"]

    rules = list(next(iter(found.values()), {}))
    lines = []
    for (name, number), scores in found.items():
        lines.append((name, str(number), *(percent(scores[rule]) for rule in rules)))
    command = "python benchmarks/few_words.py --data ../shared/data"
    return markdown(("photos", "words", *rules), lines, "l" + "r" * (1 + len(rules)), command)


def calibration(rows: Sequence[Row]) -> str:
    """Temperatures of models, and their calibration error before and after."""
    lines = []
    for row in _calibrations(rows):
        temperatures = [f"{row[key]:.3f}" for key in ("own_temperature", "temperature")]
        held_out = row["held_out"]
        measured = {"captions of other photos": held_out, **row["masks"]}
        for name, one in measured.items():
            before, after = percent(one["ece"]["own"]), percent(one["ece"]["fitted"])
            lines.append((row["model"], name, str(one["photos"]), *temperatures, before, after))

    header = ("model", "measured on", "photos", "temperature before", "after")
    header += ("error before", "after")
    return markdown(header, lines, "llrrrrr", _CALIBRATION)


def calibration_pictures(rows: Sequence[Row]) -> str:
    """Reliability diagrams of the models."""
    shown = {}
    for row in _calibrations(rows):
        for name in row["masks"]:
            shown[f"calibration-{row['model']}-{name}.svg"] = f"reliability on {name}"
    return pictures(shown, _CALIBRATION)


def _calibrations(rows: Sequence[Row]) -> list[Row]:
    """Rows of the study of calibration."""
    return [row for row in rows if row.get("kind") == "calibration"]


def _schedule(steps: int, train: Row) -> str:
    frozen = f"; `{', '.join(train['frozen'])}` frozen for the first {train['frozen_steps']:,}"
    return f"{steps:,} steps of {train['batch_size']} photos{frozen if train['frozen'] else ''}"


def segments(rows: Sequence[Row]) -> str:
    """Regions without labels against what people drew."""
    lines = []
    for row in rows:
        for name, kind in (("swept", "best of a sweep"), ("maps", "maps by the rule")):
            if name in row and "boundary_ods" in row[name]:
                values = [
                    row[name][key]
                    for key in ("boundary_ods", "boundary_ois", "covering_ods", "covering_ois")
                ]
                seconds = f"{row['seconds_per_photo']:.2f}" if name == "maps" else "–"
                lines.append(
                    (
                        row["kind"],
                        kind,
                        str(row["num_photos"]),
                        *(f"{value:.3f}" for value in values),
                        seconds,
                    )
                )
    header = (
        "kind",
        "",
        "photos",
        "F (ODS)",
        "F (OIS)",
        "covering (ODS)",
        "covering (OIS)",
        "seconds a photo",
    )
    return markdown(header, lines, "llrrrrrr", "maskfree evaluate regions ../shared/data/bsds500")
