"""The notebooks in examples/ run from their first cell to their last, and say what they are meant
to.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

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


@pytest.mark.slow
def test_photo_to_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    shutil.copy(EXAMPLES / "pagoda.jpg", tmp_path)
    monkeypatch.chdir(tmp_path)

    # The cells share one namespace, as in a notebook.
    namespace: dict[str, object] = {}
    for number, source in enumerate(cells(EXAMPLES / "photo-to-model.ipynb")):
        exec(compile(source, f"cell {number}", "exec"), namespace)

    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "pagoda.png",
        "pagoda.overlay.png",
        "pagoda.json",
    }
    assert namespace["result"].areas()["building"] > 0  # pyright: ignore[reportAttributeAccessIssue]
    # The trained model tells red from blue better than a model that gives one word to all pixels.
    scores = {row.protocol["names"]: row for row in namespace["rows"]}  # pyright: ignore
    assert scores["plain"].mean_iou > 0.6
