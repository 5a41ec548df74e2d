"""Write the tables of README.md and docs/ from results/*.json, between <!-- table:NAME --> and <!-- /table:NAME -->.

Usage: python docs/tables.py          rewrite the blocks that changed
       python docs/tables.py --check  name the blocks that are out of date and exit 1
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from maskfree.data.benchmarks import benchmark
from maskfree.text.tags import IMAGENET_TAGS, kinds_of, read_tags

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(r"(<!-- table:([a-z-]+) -->\n)(.*?)(<!-- /table:\2 -->)", re.DOTALL)

Row = dict[str, Any]


def card(_: Sequence[Row]) -> str:
    """What the bundled model is, from its own folder."""
    folder = ROOT / "src" / "maskfree" / "pocket"
    if not folder.is_dir():
        return _table((), (), "", "maskfree train vilseg_pocket")
    run = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    weights = (folder / "weights.safetensors").read_bytes()
    header = json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    values = sum(math.prod(t["shape"]) for name, t in header.items() if "shape" in t and not name.endswith("::scale"))
    size = sum(path.stat().st_size for path in folder.iterdir())
    config, train = run["config"], run["settings"]["train"]
    lines = [
        ("method", f"`{run['method'].removesuffix('Config')}`, regions: {config['grouping']}"),
        ("image encoder", f"{config['image']['family']}, output stride {config['image']['output_stride']}"),
        ("text encoder", config["text"]["family"] + (", frozen" if config["text"]["frozen"] else "")),
        (
            "projection of pixels and of texts",
            f"{config['image_projection']['kind']}, {config['text_projection']['kind']}",
        ),
        ("embedding", f"{config['embed_dim']} dimensions; smooth {config['smooth']}, presence {config['presence']:g}"),
        ("parameters", f"{values / 1e6:.1f} million, stored as {run['storage']}"),
        ("size in the package", f"{size / 1e6:.1f} MB"),
        ("training", _schedule(run["steps"], train)),
        ("prompts", "; ".join(f"`{template}`" for template in run["templates"])),
        ("weights, SHA-256", f"`{hashlib.sha256(weights).hexdigest()}`"),
    ]
    return _table(("", ""), lines, "ll", "")


def read_rows(folder: Path) -> list[Row]:
    """Read every file of results, by name; "file" tells where each came from."""
    return [
        {"file": path.name, **json.loads(path.read_text(encoding="utf-8"))} for path in sorted(folder.glob("*.json"))
    ]


def _schedule(steps: int, train: Row) -> str:
    frozen = f"; `{', '.join(train['frozen'])}` frozen for the first {train['frozen_steps']:,}"
    return f"{steps:,} steps of {train['batch_size']} photos{frozen if train['frozen'] else ''}"


def kinds(_: Sequence[Row]) -> str:
    """How many kinds the classifier's tags have, and which names of coco-mini's classes are among them."""
    tags = read_tags(IMAGENET_TAGS)
    told = set(kinds_of(tags))
    names, synonyms = (benchmark("coco-mini").words(name_set) for name_set in ("plain", "synonyms"))
    others = [(name, told & set(s.split("/"))) for name, s in zip(names, synonyms, strict=True) if name not in told]
    by_synonym = [f"{name} (as {' and '.join(sorted(found))})" for name, found in others if found]
    absent = [name for name, found in others if not found]
    return (
        f"Of the {len(tags):,} tags, {sum(bool(tag.kinds) for tag in tags)} have kinds, {len(told)} different ones. "
        f"Among them are {len(names) - len(others)} of the {len(names)} class names of `coco-mini`, and by a synonym "
        f"{', '.join(by_synonym) or 'no others'}; absent: {', '.join(absent) or 'none'}."
    )


def headline(rows: Sequence[Row]) -> str:
    """What the bundled model scores on each benchmark and protocol."""
    lines = [
        (
            row["benchmark"],
            str(row["num_photos"]),
            str(len(_words(row))),
            row["protocol"]["names"],
            f"`{row['protocol']['background']}`",
            str(row["protocol"]["side_px"]),
            _percent(row["mean_iou"]),
            _percent(row["pixel_accuracy"]),
        )
        for row in _scored(rows, "pocket")
    ]
    header = ("benchmark", "photos", "classes", "names", "background", "side px", "mIoU %", "pixel accuracy %")
    return _table(header, lines, "lrrllrrr", "maskfree evaluate coco-mini --data FOLDER")


def classes(rows: Sequence[Row]) -> str:
    """IoU per class of the bundled model on coco-mini, a column for each protocol."""
    scored = [row for row in _scored(rows, "pocket") if row["benchmark"] == "coco-mini"]
    names = list(dict.fromkeys(name for row in scored for name in row["iou"]))
    header = ("class", *(f"{row['protocol']['names']}, {row['protocol']['background']}" for row in scored))
    lines = [(name, *(_percent(row["iou"].get(name)) for row in scored)) for name in names]
    return _table(header, lines, "l" + "r" * len(scored), "maskfree evaluate coco-mini --data FOLDER")


def extremes(rows: Sequence[Row]) -> str:
    """The classes of coco-mini on which the bundled model is best and worst, with synonyms and without background."""
    for row in _scored(rows, "pocket"):
        protocol = row["protocol"]
        if (row["benchmark"], protocol["names"], protocol["background"]) == ("coco-mini", "synonyms", "none"):
            order = sorted(((iou, name) for name, iou in row["iou"].items() if iou is not None), reverse=True)
            best, worst = (
                ", ".join(f"{n} ({_percent(iou)})" for iou, n in part) for part in (order[:5], order[:-6:-1])
            )
            return (
                f"Of the {len(order)} classes of `coco-mini`, with synonyms and without background, it has its highest "
                f"IoU on {best} and its lowest on {worst}, in percent."
            )
    return _table((), (), "", "maskfree evaluate coco-mini --data FOLDER")


def tried(rows: Sequence[Row]) -> str:
    """What was tried for the bundled model: history, copied by hand."""
    parts = [(row, point) for row in rows if row.get("history") == "pocket" for point in row["rows"]]
    figures = [(part, figure) for part in ("names", "synonyms") for figure in ("mean_iou", "pixel_accuracy")]
    lines = [
        (point["tried"], *(_percent(point[part].get(figure)) for part, figure in figures), point["kept"])
        for _, point in parts
    ]
    scored = (f"{names}: {figure} %" for names in ("plain", "synonyms") for figure in ("mIoU", "pixel accuracy"))
    return _with_source(_table(("tried", *scored, "kept"), lines, "lrrrrl", ""), [row for row, _ in parts])


def allocator(rows: Sequence[Row]) -> str:
    """What glibc's allocator costs in training: history, copied by hand."""
    parts = [(row, point) for row in rows if row.get("history") == "allocator" for point in row["rows"]]
    lines = [(point["work"], f"{point['usual']:g}", f"{point['tuned']:g}") for _, point in parts]
    header = ("work", "as usual, photos/s", "with the variables, photos/s")
    return _with_source(_table(header, lines, "lrr", ""), [row for row, _ in parts])


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
    return _table(header, lines, "llrll", "python benchmarks/inference.py")


def overlays(_: Sequence[Row]) -> str:
    """The label maps that `docs/pictures.py --data` made, best first."""
    files = sorted((ROOT / "docs" / "images").glob("best-*.jpg")) + sorted(
        (ROOT / "docs" / "images").glob("worst-*.jpg")
    )
    lines = [f"![{file.stem.replace('-', ' ')}: ours, the truth](../images/{file.name})" for file in files]
    return "\n\n".join(lines) or _table((), (), "", "python docs/pictures.py --data FOLDER")


def precision(rows: Sequence[Row]) -> str:
    """Number formats: time, labels that change against fp32, and scores where they were measured."""
    lines = [
        (
            point["format"],
            f"{1000 * point['seconds']:.0f}",
            f"{100 * point['labels_changed']:.2f}",
            _percent(point.get("coco_mini_miou")),
            _percent(point.get("coco_mini_pixel_accuracy")),
        )
        for row in rows
        if row.get("benchmark") == "precision"
        for point in row["rows"]
    ]
    header = ("format", "ms a photo", "labels changed %", "mIoU %", "pixel accuracy %")
    return _table(header, lines, "lrrrr", "python benchmarks/precision.py --data FOLDER")


def ablation(rows: Sequence[Row]) -> str:
    """ViL-Seg with one thing changed at a time: the mean over seeds and, with several, their standard deviation."""
    points = [point for row in rows if row.get("benchmark") == "ablation" for point in row["rows"]]
    names = list(dict.fromkeys(point["protocol"]["names"] for point in points))
    lines = []
    for variant in dict.fromkeys(point["variant"] for point in points):
        runs = [point for point in points if point["variant"] == variant]
        chosen = [[run for run in runs if run["protocol"]["names"] == name] for name in names]
        scores = [
            _spread([run[figure] for run in part]) for part in chosen for figure in ("mean_iou", "pixel_accuracy")
        ]
        speed = f"{1 / statistics.mean(run['seconds_per_photo'] for run in runs):.1f}"
        lines.append((variant, *scores, f"{runs[0]['parameters'] / 1e6:.2f}", speed))
    scored = (f"{name}: {figure} %" for name in names for figure in ("mIoU", "pixel accuracy"))
    header = ("variant", *scored, "parameters, million", "photos/s")
    command = "python benchmarks/ablation.py vilseg_pocket --data FOLDER"
    return _table(header, lines, "l" + "r" * (len(header) - 1), command)


def collapse(rows: Sequence[Row]) -> str:
    """What becomes of the answers under the literal and the working form of the vision-based loss."""
    curves: dict[str, dict[int, Row]] = {"literal": {}, "distillation": {}}
    for row in rows:
        if row.get("benchmark") == "collapse":
            for point in row["rows"]:
                curves[point["form"]][point["step"]] = point
    lines = [
        (
            str(step),
            *(f"{curves[form][step][figure]:.2f}" for form in curves for figure in ("loss", "mean_entropy", "entropy")),
        )
        for step in sorted(set(curves["literal"]) & set(curves["distillation"]))
    ]
    header = ("step", *(f"{form}: {figure}" for form in ("literal", "working") for figure in ("loss", "all", "one")))
    return _table(header, lines, "r" * len(header), "python benchmarks/collapse.py --shard FILE --weights FOLDER")


def commands(rows: Sequence[Row]) -> str:
    """The command behind each file of results."""
    lines = [(f"`{row['file']}`", f"`{row['command']}`") for row in rows if "command" in row]
    return _table(("file", "command"), lines, "ll", "maskfree evaluate coco-mini --data FOLDER")


TABLES: dict[str, Callable[[Sequence[Row]], str]] = {
    "headline": headline,
    "classes": classes,
    "extremes": extremes,
    "kinds": kinds,
    "tried": tried,
    "allocator": allocator,
    "ablation": ablation,
    "collapse": collapse,
    "speed": speed,
    "precision": precision,
    "card": card,
    "overlays": overlays,
    "commands": commands,
}


def rewritten(text: str, rows: Sequence[Row]) -> str:
    """Return TEXT with every marked block as the results say it."""
    return BLOCK.sub(lambda block: f"{block[1]}\n{TABLES[block[2]](rows)}\n\n{block[4]}", text)


def pages() -> list[Path]:
    """List the pages that may hold tables."""
    return [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def main() -> int:
    """Rewrite the pages, or with --check name those that need it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a table is out of date")
    check = parser.parse_args().check
    rows = read_rows(ROOT / "results")
    stale = []
    for page in pages():
        text = page.read_text(encoding="utf-8")
        new = rewritten(text, rows)
        if new != text:
            stale.append(page.relative_to(ROOT))
            if not check:
                page.write_text(new, encoding="utf-8")
    for page in stale:
        print(f"{page}: tables are out of date; run `make tables`" if check else f"{page}: written")
    return 1 if check and stale else 0


def _scored(rows: Iterable[Row], model: str) -> list[Row]:
    """Rows of `maskfree evaluate` for MODEL."""
    return [row for row in rows if "mean_iou" in row and row["model"] == model]


def _words(row: Row) -> list[str]:
    return [name for name in row["iou"] if name != "background"]


def _percent(fraction: float | None) -> str:
    return "–" if fraction is None else f"{100 * fraction:.1f}"


def _with_source(table: str, rows: Sequence[Row]) -> str:
    """Say under a table of history where its figures come from."""
    return "\n\n".join([table, *dict.fromkeys(f"*{row['source']}*" for row in rows)])


def _spread(fractions: Sequence[float]) -> str:
    mean = f"{100 * statistics.mean(fractions):.1f}"
    return f"{mean} ± {100 * statistics.stdev(fractions):.1f}" if len(fractions) > 1 else mean


def _table(header: Sequence[str], lines: Sequence[Sequence[str]], alignment: str, command: str) -> str:
    """Format a Markdown table; without lines, say which command measures it. ALIGNMENT has l or r per column."""
    if not lines:
        return f"*Not measured yet; `{command}` measures it.*"
    rule = ["---:" if side == "r" else "---" for side in alignment]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *lines))


if __name__ == "__main__":
    sys.exit(main())
