"""The zero-shot protocol, with a method that reads class ids off the colours: every score is known beforehand."""

import json
import shlex
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from maskfree.data.benchmarks import Benchmark, CocoInstances, IndexMaps, benchmark
from maskfree.evaluate.zero_shot import DEFAULT_THRESHOLD, Protocol, check, measure, protocols
from maskfree.method import Method
from maskfree.predict import Segmenter
from maskfree.types import Losses, Tokens

WORDS = benchmark("coco-mini").words()
PATCH_PX = 4
COLOUR_STEP = 12  # red value per class id
PERSON, CAR, DOG, SHEEP = (WORDS.index(word) for word in ("person", "car", "dog", "sheep"))
NOTHING = 20


def tokenize(texts):
    """One token: the class that the text names; 20 for what is no class."""
    ids = [next((i for i, word in enumerate(WORDS) if text.endswith(word)), NOTHING) for text in texts]
    return Tokens(torch.tensor(ids)[:, None], torch.ones(len(ids), 1, dtype=torch.bool))


class Colours(Method):
    """Cosine 1 to the class whose colour a patch has, 0 to the others; grey resembles everything a little."""

    stride_px = PATCH_PX

    def __init__(self):
        super().__init__()
        self.table = torch.nn.Parameter(torch.eye(NOTHING + 1))

    def forward(self, batch):
        return Losses({})

    def encode_text(self, tokens):
        return self.table[tokens.ids[:, 0]]

    def segment(self, images, classes):
        red = F.avg_pool2d(images, PATCH_PX)[:, 0] * 255
        return torch.einsum("bhwd,kd->bkhw", self.table[(red / COLOUR_STEP).round().long()], classes)


def photo(labels):
    """Paint each class in its colour."""
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    pixels[..., 0] = labels * COLOUR_STEP
    return Image.fromarray(pixels)


def outline(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def segmenter():
    return Segmenter(Colours().eval(), tokenize, name="colours", weights_hash="0" * 64)


PROTOCOL = Protocol(side_px=32)  # photos are seen at their own size


@pytest.fixture
def root(tmp_path):
    """Two photos of 48x32. Photo a: person on the left half, dog right of it, both painted truly but for a strip of 8
    columns of the dog that looks like a car. Photo b: a dog in the left third, the rest no class and painted as one."""
    names = benchmark("coco-mini-80").words()
    category = {name: i for i, name in enumerate(names)}
    a = np.full((32, 48), PERSON)
    a[:, 24:] = DOG
    a[:, 40:] = CAR
    b = np.full((32, 48), NOTHING)
    b[:, :16] = DOG
    (tmp_path / "images").mkdir()
    for name, labels in (("a", a), ("b", b)):
        photo(labels).save(tmp_path / "images" / f"{name}.png")
    content = {
        "images": [{"id": i, "file_name": f"{i}.png", "width": 48, "height": 32} for i in ("a", "b")],
        "categories": [{"id": i, "name": name} for name, i in category.items()],
        "annotations": [
            {"image_id": "a", "category_id": 0, "area": 768, "segmentation": outline(0, 0, 24, 32)},
            {"image_id": "a", "category_id": category["dog"], "area": 768, "segmentation": outline(24, 0, 48, 32)},
            {"image_id": "b", "category_id": category["dog"], "area": 512, "segmentation": outline(0, 0, 16, 32)},
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def run(segmenter, root, protocol, bench=None):
    bench = bench or benchmark("coco-mini")
    return measure(segmenter, bench, bench.samples(root), protocol, command="test")


def test_without_background_only_pixels_of_a_class_count(segmenter, root):
    row = run(segmenter, root, PROTOCOL)
    width_of_strip = 8  # of 24 columns of dog in a, besides 16 in b
    assert row.iou["person"] == 1
    assert row.iou["dog"] == pytest.approx(1 - width_of_strip / 40, abs=0.03)  # edges of patches are interpolated
    assert row.iou["car"] == 0  # predicted, nowhere true
    assert row.iou["sheep"] is None  # in neither
    assert row.mean_iou == pytest.approx((1 + row.iou["dog"] + 0) / 3)
    assert row.pixel_accuracy == pytest.approx(1 - width_of_strip / 64, abs=0.02)
    assert "background" not in row.iou


def test_with_background_every_pixel_counts(segmenter, root):
    row = run(segmenter, root, replace(PROTOCOL, background="threshold:0.4"))
    assert list(row.iou)[-1] == "background"
    assert row.iou["background"] == pytest.approx(1, abs=0.05)
    assert row.pixel_accuracy == pytest.approx(1 - 8 / 96, abs=0.02)


def test_background_words_compete(segmenter, root):
    row = run(segmenter, root, replace(PROTOCOL, background="words:wall"))
    assert row.iou["background"] == pytest.approx(1, abs=0.05)


def test_a_larger_photo_is_compared_at_its_full_size(segmenter, root):
    """The network sees 16 rows, the label map has 32."""
    row = run(segmenter, root, replace(PROTOCOL, side_px=16))
    assert row.pixel_accuracy == pytest.approx(1 - 8 / 64, abs=0.05)


def test_a_row_carries_its_protocol(segmenter, root):
    bench = benchmark("coco-mini")
    row = run(segmenter, root, replace(PROTOCOL, names="synonyms", background="threshold:0.4"))
    assert row.protocol["names"] == "synonyms"
    assert row.protocol["background"] == "threshold:0.4"
    assert row.protocol["side_px"] == 32
    assert row.protocol["templates"] == ["a photo of a {}"]
    assert row.names_sha256 == bench.names_sha256("synonyms") != bench.names_sha256("plain")
    assert (row.num_photos, row.model, row.weights_sha256) == (2, "colours", "0" * 64)
    assert row.versions["torch"] == torch.__version__.split("+")[0] or row.versions["torch"] == torch.__version__
    assert row.seconds_per_photo > 0


def test_templates_can_be_given(segmenter, root):
    row = run(segmenter, root, replace(PROTOCOL, templates="my {}"))
    assert row.protocol["templates"] == ["my {}"]


def test_progress_sees_every_photo(segmenter, root):
    seen = []

    def watch(samples):
        for sample in samples:
            seen.append(sample.key)
            yield sample

    bench = benchmark("coco-mini")
    measure(segmenter, bench, bench.samples(root), PROTOCOL, command="test", watch=watch)
    assert seen == ["images/a.png", "images/b.png"]


@pytest.mark.parametrize(
    ("bench", "protocol", "message"),
    [
        ("coco-mini", Protocol(names="nick"), "coco-mini has no name set 'nick'"),
        ("coco-mini", Protocol(background="threshold:2"), "is not a cosine"),
        ("camvid", Protocol(background="threshold:0.3"), "camvid does not label its background"),
    ],
)
def test_a_protocol_that_does_not_fit_is_refused(bench, protocol, message):
    with pytest.raises(ValueError, match=message):
        check(benchmark(bench), protocol)


def test_a_photo_whose_labels_break_the_list_is_named(segmenter, tmp_path):
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    photo(np.zeros((8, 12), np.int64)).save(tmp_path / "images" / "p.png")
    Image.fromarray(np.full((8, 12), 99, np.uint8)).save(tmp_path / "labels" / "p.png")
    bench = Benchmark("x", "", IndexMaps(), {"plain": "camvid11"})
    with pytest.raises(ValueError, match=r"p\.png holds id 99"):
        run(segmenter, tmp_path, replace(PROTOCOL, side_px=8), bench)


def test_an_overlap_is_judged_by_the_object_on_top(segmenter, root):
    """Turn photo b's rest into a person that lies under the dog: without background it then counts, as a miss."""
    content = json.loads((root / "instances.json").read_text())
    content["annotations"].append(
        {"image_id": "b", "category_id": 0, "area": 1536, "segmentation": outline(0, 0, 48, 32)}
    )
    (root / "instances.json").write_text(json.dumps(content))
    row = run(segmenter, root, PROTOCOL, Benchmark("x", "", CocoInstances(renamed="coco_to_voc20"), {"plain": "voc20"}))
    assert row.iou["person"] == pytest.approx(24 / (24 + 32), abs=0.03)


def test_by_default_every_name_set_is_measured_with_and_without_background():
    found = protocols(benchmark("coco-mini"), side_px=336)
    assert [(p.names, p.background, p.side_px) for p in found] == [
        ("plain", "none", 336),
        ("synonyms", "none", 336),
        ("plain", DEFAULT_THRESHOLD, 336),
        ("synonyms", DEFAULT_THRESHOLD, 336),
    ]
    assert [p.background for p in protocols(benchmark("camvid"))] == ["none"]


def test_the_options_ask_for_the_same_protocol():
    assert Protocol().options() == ["--names", "plain", "--background", "none"]
    asked = Protocol("synonyms", "threshold:0.4", side_px=336, templates="a {}").options()
    assert shlex.join(asked) == "--names synonyms --background threshold:0.4 --side-px 336 --templates 'a {}'"


def test_the_model_is_asked_for_the_words_of_the_name_set(root):
    asked = []

    def listen(texts):
        asked.extend(texts)
        return tokenize(texts)

    segmenter = Segmenter(Colours().eval(), listen, name="colours")
    run(segmenter, root, PROTOCOL)
    assert asked == [f"a photo of a {word}" for word in WORDS]
    run(segmenter, root, replace(PROTOCOL, names="synonyms"))
    assert {"a photo of a couch", "a photo of a man", "a photo of a kitten"} <= set(asked)
