"""A benchmark of two photos with a person in the left upper quarter."""

from __future__ import annotations

import json
from pathlib import Path

from PIL import Image

from maskfree.data.benchmarks.catalog import benchmark


def write_benchmark(root: Path) -> Path:
    """Write the files of a tiny coco-mini; return their folder."""
    (root / "images").mkdir(parents=True)
    for number in (1, 2):
        Image.linear_gradient("L").resize((64, 48)).convert("RGB").save(
            root / "images" / f"{number}.jpg"
        )
    square = [[0, 0, 32, 0, 32, 24, 0, 24]]
    names = benchmark("coco-mini-80").words()
    sizes = {"width": 64, "height": 48}
    annotation = {"category_id": 0, "area": 768, "segmentation": square}
    content = {
        "images": [{"id": i, "file_name": f"{i}.jpg", **sizes} for i in (1, 2)],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
        "annotations": [{"image_id": i, **annotation} for i in (1, 2)],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root
