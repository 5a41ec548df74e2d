"""The notebooks in examples/ run from their first cell to their last, and say what they are meant
to.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def cells(notebook: Path) -> list[str]:
    """Return the source of each code cell."""
    content = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in content["cells"] if cell["cell_type"] == "code"]


def test_notebooks_are_stored_without_outputs():
    for notebook in EXAMPLES.glob("*.ipynb"):
        content = json.loads(notebook.read_text(encoding="utf-8"))
        assert not any(cell.get("outputs") for cell in content["cells"]), notebook.name


def run_cells(notebook: Path) -> dict[str, Any]:
    """Run the cells, which share one namespace as in a notebook."""
    namespace: dict[str, Any] = {}
    for number, source in enumerate(cells(notebook)):
        exec(compile(source, f"cell {number}", "exec"), namespace)
    return namespace


def test_first_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(EXAMPLES / "pagoda.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)
    made = run_cells(EXAMPLES / "first_steps.ipynb")
    assert made["more"].areas()["pagoda"] > 0.2
    assert set(made["alone"].areas()) == {"sky", "background"}
    assert len(made["connected"]) >= 3
    assert 0 < (made["sure"].labels == 255).mean() < 0.5
    coco = json.loads((tmp_path / "out" / "pagoda.coco.json").read_text())
    assert {each["name"] for each in coco["categories"]} == {"building", "sky", "tree"}
    assert json.loads((tmp_path / "out" / "pagoda.labelme.json").read_text())["shapes"]
    assert made["rows"][0].pixel_accuracy > 0.3


@pytest.mark.slow
def test_photo_to_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(EXAMPLES / "pagoda.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)

    namespace = run_cells(EXAMPLES / "photo-to-model.ipynb")

    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "pagoda.png",
        "pagoda.overlay.png",
        "pagoda.json",
    }
    assert namespace["result"].areas()["building"] > 0
    # The trained model tells red from blue better than a model that gives one word to all pixels.
    scores = {row.protocol["names"]: row for row in namespace["rows"]}
    assert scores["plain"].mean_iou > 0.6
