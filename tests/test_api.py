"""The API that a user calls from Python: words per call, regions, listings and short texts."""

from __future__ import annotations

import io
import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import maskfree
from maskfree.hub.catalog import MODELS
from maskfree.hub.loading import load
from maskfree.inference.segmenter import Segmenter
from maskfree.results.segmentation import Segmentation
from maskfree.text.background import BACKGROUND_WORDS, SCENE_WORDS
from maskfree.text.tags import read_tags

Photos = Callable[..., Image.Image]


EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def model(tiny_checkpoint: Path) -> Segmenter:
    return load(tiny_checkpoint, device="cpu")


@pytest.fixture
def result() -> Segmentation:
    """4 x 6 pixels: sky in a corner, one pixel of background, tree elsewhere; no pixel is a bus."""
    labels = np.full((4, 6), 1, np.uint8)
    labels[:2, :3] = 0
    labels[3, 5] = 3

    scores = np.full((4, 6), 0.25, np.float16)
    scores[0, :3] = 0.5
    record = {
        "words": [["sky", "clouds"], ["tree"], ["bus"]],
        "background": {"rule": "threshold:0.1", "id": 3},
        "photo": {"name": "a.jpg", "width": 6, "height": 4},
    }
    return Segmentation(
        labels=labels,
        words=("sky", "tree", "bus"),
        scores=scores,
        image=np.zeros((4, 6, 3), np.uint8),
        record=record,
    )


def test_regions_are_the_names_that_occur(result: Segmentation):
    sky, tree, background = result

    assert [sky.name, tree.name, background.name] == ["sky", "tree", "background"]
    assert [sky.box, tree.box, background.box] == [(0, 0, 3, 2), (0, 0, 6, 4), (5, 3, 6, 4)]
    assert sky.score == pytest.approx((3 * 0.5 + 3 * 0.25) / 6)
    assert sky.area == 6 / 24

    assert (sky.mask == (result.labels == 0)).all()
    covered = sum(region.mask.astype(int) for region in result)
    assert np.array_equal(covered, np.ones((4, 6), int))


def test_areas_of_regions_are_those_of_the_result(result: Segmentation):
    areas = {region.name: region.area for region in result}
    assert areas == {name: area for name, area in result.areas().items() if area > 0}


def test_score_of_a_large_region_does_not_overflow():
    size = (400, 300)  # the sum of the scores is above the largest float16
    result = Segmentation(
        labels=np.zeros(size, np.uint8),
        words=("sky",),
        scores=np.full(size, 0.75, np.float16),
        image=np.zeros((*size, 3), np.uint8),
        record={"words": [["sky"]], "background": None},
    )
    assert [region.score for region in result] == [0.75]


def test_masks_by_name(result: Segmentation):
    assert (result["sky"] == result.mask("sky")).all()
    assert (result["Clouds"] == result.mask("sky")).all()
    assert list(result.masks) == ["sky", "tree", "background"]
    assert (result.masks["tree"] == result["tree"]).all()
    assert not result["bus"].any()
    with pytest.raises(ValueError, match="'car' is not among the words"):
        result["car"]


def test_show_opens_the_overlay(result: Segmentation, monkeypatch: pytest.MonkeyPatch):
    shown: list[Image.Image] = []
    monkeypatch.setattr(Image.Image, "show", lambda picture: shown.append(picture))
    result.show()
    assert [picture.tobytes() for picture in shown] == [result.overlay().tobytes()]


def test_notebooks_show_the_overlay(result: Segmentation):
    picture = Image.open(io.BytesIO(result._repr_png_()))
    assert picture.tobytes() == result.overlay().tobytes()

    text = result._repr_html_()
    assert "data:image/png;base64," in text and "sky 25.0%" in text and "bus" not in text


def test_names_are_escaped_in_html(result: Segmentation):
    record = result.record | {"words": [["<b>"], ["tree"], ["bus"]]}
    odd = Segmentation(result.labels, ("<b>", "tree", "bus"), result.scores, result.image, record)
    assert "<b>" not in odd._repr_html_()
    assert "&lt;b&gt;" in odd._repr_html_()


def test_large_pictures_are_made_smaller_for_notebooks():
    size = (1100, 1500)
    result = Segmentation(
        labels=np.zeros(size, np.uint8),
        words=("sky",),
        scores=np.zeros(size, np.float16),
        image=np.zeros((*size, 3), np.uint8),
        record={"words": [["sky"]], "background": None},
    )
    assert max(Image.open(io.BytesIO(result._repr_png_())).size) == 1024


def test_texts_of_objects_are_short(model: Segmenter, result: Segmentation):
    assert repr(model) == "Segmenter('tiny', words=None, background='none', device='cpu')"
    assert repr(model.with_words(["cat", "wall"])).startswith(
        "Segmenter('tiny', words=['cat', 'wall']"
    )
    assert repr(result) == "Segmentation(6x4, words=['sky', 'tree', 'bus'])"
    assert repr(next(iter(result))) == "Region('sky', score=0.375, box=(0, 0, 3, 2), area=25.0%)"

    many = Segmentation(
        result.labels, tuple(map(str, range(999))), result.scores, result.image, result.record
    )
    assert len(repr(many)) < 100


def test_words_of_a_call_are_those_of_with_words(model: Segmenter, photo: Photos):
    words, rule = ["cat", "wall"], "threshold:0.1"
    expected = model.with_words(words, rule, "plain")(photo())
    found = model(photo(), words=words, background=rule, templates="plain")

    assert found.record == expected.record
    assert (found.labels == expected.labels).all()
    assert model.vocabulary is None


def test_a_call_keeps_the_words_that_it_does_not_change(model: Segmenter, photo: Photos):
    own = model.with_words(["cat/kitten", "wall"])
    found = own([photo()], background="threshold:1")[0]

    assert found.record["words"] == [["cat", "kitten"], ["wall"]]
    assert (found.labels == 2).all()


def test_a_call_without_words_says_so(model: Segmenter, photo: Photos):
    with pytest.raises(ValueError, match="no words were chosen"):
        model(photo())
    with pytest.raises(ValueError, match="no words were chosen"):
        model(photo(), background="none")


def labels_of(job: tuple[Segmenter, np.ndarray]) -> np.ndarray:
    segmenter, pixels = job
    return segmenter(Image.fromarray(pixels)).labels


def test_segmenter_is_pickled_into_a_spawn_pool(model: Segmenter, photo: Photos):
    chosen = model.with_words(["cat", "wall"])
    pixels = np.asarray(photo())
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.map(labels_of, [(chosen, pixels)])[0]
    assert (found == labels_of((chosen, pixels))).all()


def test_result_is_pickled(result: Segmentation):
    again = pickle.loads(pickle.dumps(result))
    assert (again["sky"] == result["sky"]).all()


def test_models_are_listed():
    assert maskfree.list_models() == list(MODELS)


def test_dir_shows_the_public_names_only():
    assert dir(maskfree) == sorted(maskfree.__all__)
    for name in dir(maskfree):
        assert getattr(maskfree, name) is not None


def test_texts_are_embedded_as_with_words_does(model: Segmenter):
    embeddings = model.with_words(["cat", "wall"], "none").embeddings
    assert embeddings is not None
    torch.testing.assert_close(model.embed_text(["cat", "wall"]), embeddings)
    with pytest.raises(ValueError, match="give a list"):
        model.embed_text("cat")


def test_photo_is_embedded_patch_by_patch(model: Segmenter, photo: Photos):
    seen = model.embed_image(photo())
    assert repr(seen) == f"PatchEmbeddings({tuple(seen.values.shape)}, extent={seen.extent})"
    assert seen.values.shape[0] == model.embed_text(["cat"]).shape[1]
    torch.testing.assert_close(seen.values.norm(dim=0), torch.ones(seen.values.shape[1:]))


def test_video_is_tracked_by_words(model: Segmenter, photo: Photos, tmp_path: Path):
    clip = tmp_path / "clip"
    clip.mkdir()
    for number in range(2):
        photo().save(clip / f"{number}.png")

    frames = list(model.track(clip, words=["cat", "wall"]))
    assert [frame.words for frame in frames] == 2 * [("cat", "wall")]
    assert [frame.labels.shape for frame in frames] == 2 * [(57, 83)]
    with pytest.raises(ValueError, match="no words were chosen"):
        model.track(clip)


def test_segments_are_searched(model: Segmenter, photo: Photos, tmp_path: Path):
    for name in ("a.png", "b.png"):
        photo().save(tmp_path / name)

    hits = model.search([tmp_path / "a.png", str(tmp_path / "b.png")], "cat")
    assert len(repr(hits[0])) < 300 and "\n" not in repr(hits[0])
    assert {hit.photo.name for hit in hits} == {"a.png", "b.png"}
    assert hits[0].score >= hits[1].score


def test_benchmark_is_evaluated_by_name(model: Segmenter, shared_data: Callable[[str], Path]):
    root = shared_data("coco-mini")
    (row,) = maskfree.evaluate(model, "coco-mini", root, protocol="sclip", max_photos=1)
    assert row.num_photos == 1
    assert row.benchmark == "coco-mini"
    assert len(repr(row)) < 120

    with pytest.raises(ValueError, match="'best' is unknown"):
        maskfree.evaluate(model, "coco-mini", root, protocol="best")


def test_the_bundled_model_does_what_the_readme_promises(tmp_path: Path):
    assert "pocket" in maskfree.list_models()
    bundled = maskfree.load("pocket", device="auto")
    result = bundled(EXAMPLES / "chelsea.jpg", words=["cat", "wall", "bus"])

    names = [region.name for region in result]
    assert "cat" in names
    assert all(result[region.name].sum() == region.mask.sum() for region in result)
    assert list(result.masks) == names
    assert result.labels.shape == result.scores.shape == (300, 451)

    paths = result.save(tmp_path / "out")
    assert [path.name for path in paths] == ["chelsea.png", "chelsea.overlay.png", "chelsea.json"]

    # The words are kept for further photos.
    chosen = bundled.with_words(["cat", "wall", "bus"])
    again = chosen((EXAMPLES / "chelsea.jpg").read_bytes())
    assert (again.labels == result.labels).all()

    # Of all regions of two photos, the best for a word lies in the photo of it.
    photos = [EXAMPLES / "rocket.jpg", EXAMPLES / "chelsea.jpg"]
    assert bundled.search(photos, "cat")[0].photo.name == "chelsea.jpg"


@pytest.mark.parametrize("form", [str, Path, Path.read_bytes, Image.open, "array", "tensor"])
def test_a_photo_has_many_forms(model: Segmenter, photo: Photos, tmp_path: Path, form):
    path = tmp_path / "photo.png"
    photo().save(path)
    expected = model(path, words=["cat", "wall"])

    pixels = np.array(photo())
    if form == "array":
        source = pixels
    elif form == "tensor":
        source = torch.from_numpy(pixels).movedim(-1, 0)
    else:
        source = form(path)
    assert (model(source, words=["cat", "wall"]).labels == expected.labels).all()


def test_the_automatic_background_is_what_shows_none_of_the_words():
    bundled = maskfree.load()
    near = bundled.with_words(["automobile"], "auto").background
    assert str(near) == "auto"
    assert ("car",) not in near.words, "no list says so, but the model finds them close"
    assert {("sky",), ("road",), ("dog",)} <= set(near.words)

    # Words chosen for other classes are not kept.
    other = bundled.with_words(["cat"], "auto").with_words(["sky"]).background
    assert ("cat",) in other.words and ("sky",) not in other.words

    result = bundled(EXAMPLES / "chelsea.jpg", words=["cat"], background="auto")
    assert 0.05 < result.areas()["background"] < 0.95
    assert result.record["background"]["rule"] == "auto"
    assert "cat" not in result.record["background"]["words"]


def test_no_automatic_background_for_classes_that_are_all_its_words():
    everyday = [entry.names[0] for entry in read_tags(BACKGROUND_WORDS)]
    with pytest.raises(ValueError, match="auto has no word that is far from every class"):
        maskfree.load().with_words(everyday, "auto")


def test_one_word_does_not_cover_the_photo():
    bundled = maskfree.load()
    result = bundled(EXAMPLES / "chelsea.jpg", words=["cat"])
    assert 0.2 < result.areas()["cat"] < 0.95
    assert result.record["background"]["rule"] == "scene"
    assert result.record["background"]["default"]
    assert "wall" in result.record["background"]["words"]

    asked = bundled(EXAMPLES / "chelsea.jpg", words=["cat"], background="scene")
    assert (asked.labels == result.labels).all()
    assert "default" not in asked.record["background"]

    whole = bundled(EXAMPLES / "chelsea.jpg", words=["cat"], background="none")
    assert whole.areas() == {"cat": 1}
    assert whole.record["background"] is None


def test_the_default_background_follows_the_words():
    bundled = maskfree.load()
    few = bundled.with_words(["cat", "wall"])
    assert str(few.background) == "scene" and ("wall",) not in few.background.words
    assert not few.with_words(["cat", "wall", "bus"]).background
    assert str(few.with_words(["dog"]).background) == "scene"

    # A rule that was asked for is kept.
    none = bundled.with_words(["cat", "wall", "bus"], "none")
    assert not none.with_words(["cat"]).background
    assert str(bundled.with_words(["cat"], "auto").with_words(["dog"]).background) == "auto"


def test_classes_that_leave_no_word_for_the_scene_have_no_default_background(model: Segmenter):
    classes = ["/".join(SCENE_WORDS), "cat"]
    assert not model.with_words(classes).background
    with pytest.raises(ValueError, match="the background rule scene has no word"):
        model.with_words(classes, "scene")
