"""The projection: principal components, the same file for the same numbers, and what cannot be
drawn.
"""

import pytest
import torch
from torch.testing import assert_close

from maskfree.evaluation.reporting.projection import draw_projection, project

CLASSES = [f"thing {i}" for i in range(9)]


def embeddings(num=40, dim=6, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(num, dim, generator=draw), torch.randint(0, 9, (num,), generator=draw)


def test_places_are_along_the_directions_of_largest_variance():
    along = torch.randn(200, 2) * torch.tensor([10.0, 3.0])
    rotation = torch.linalg.qr(torch.randn(5, 5))[0]
    values = torch.cat([along, 0.01 * torch.randn(200, 3)], 1) @ rotation + 7
    placed = project(values, values)
    assert_close(placed.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    centerd = values - values.mean(0)
    _, singular, directions = torch.linalg.svd(centerd.double())
    assert_close(
        placed.abs(), (centerd.double() @ directions[:2].T).abs().float(), atol=1e-4, rtol=1e-4
    )
    assert_close(placed.double().norm(dim=0), singular[:2], atol=1e-4, rtol=1e-4)


def test_new_values_are_placed_as_those_that_were_fitted():
    values, _ = embeddings()
    assert_close(project(values[:7], values), project(values, values)[:7])


def test_the_same_numbers_give_the_same_file_with_a_panel_for_each_model(tmp_path):
    models = {"teacher": embeddings(), "student": embeddings(30, 6, 1)}
    paths = [
        draw_projection(models, CLASSES, tmp_path / f"{i}.svg", title="segments") for i in range(2)
    ]
    torch.randn(3)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    drawn = paths[0].read_text()
    for text in ("teacher", "student", "segments", "thing 3"):
        assert f"<!-- {text} -->" in drawn
    other = draw_projection(models, CLASSES, tmp_path / "union.svg", fit="union")
    assert other.read_bytes() != paths[0].read_bytes()


def test_models_of_other_widths_are_fitted_each_by_itself(tmp_path):
    models = {"wide": embeddings(), "narrow": embeddings(30, 4)}
    assert draw_projection(models, CLASSES, tmp_path / "a.png").stat().st_size > 1000
    with pytest.raises(
        ValueError, match="the embeddings have 4 and 6 dimensions: fit each by itself"
    ):
        draw_projection(models, CLASSES, tmp_path / "b.svg", fit="union")


def test_only_classes_that_occur_are_in_the_legend(tmp_path):
    values, _ = embeddings()
    drawn = draw_projection(
        {"a": (values, torch.full((40,), 2))}, CLASSES, tmp_path / "a.svg"
    ).read_text()
    assert "<!-- thing 2 -->" in drawn
    assert "<!-- thing 3 -->" not in drawn


@pytest.mark.parametrize(
    ("models", "path", "line"),
    [
        ({}, "a.svg", "no embeddings to draw"),
        ({"a": embeddings()}, "a.pdf", "must end in"),
        (
            {"a": (torch.zeros(1, 4), torch.zeros(1, dtype=torch.long))},
            "a.svg",
            r"shape \(1, 4\): at least 2",
        ),
        (
            {"a": (torch.zeros(3, 4), torch.zeros(2, dtype=torch.long))},
            "a.svg",
            "3 embeddings but 2 classes",
        ),
        ({"a": (torch.zeros(3, 4), torch.full((3,), 9))}, "a.svg", "a class outside 0 to 8"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(tmp_path, models, path, line):
    with pytest.raises(ValueError, match=line):
        draw_projection(models, CLASSES, tmp_path / path)
    assert not list(tmp_path.iterdir())
