from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.packed import PackedViews
from maskfree.data.sample import Source
from maskfree.methods.student.batch import StudentBatch
from maskfree.methods.student.config import StudentViews
from maskfree.methods.student.model import Student
from maskfree.methods.student.transform import StudentSample, _CropWindow, confident
from maskfree.ops.ignore import IGNORE
from tiny import tiny_student_config

CLASSES = 3
PLAIN = StudentViews(
    crop_px=32, side_px=32, zoom=(1.0, 1.0), mirror=0.0, jitter=(0.0, 0.0, 0.0, 0.0)
)


def write_map(path: Path, labels: np.ndarray, sure: np.ndarray | int = 255) -> Path:
    path.parent.mkdir(exist_ok=True)
    pairs = np.stack([labels, np.broadcast_to(sure, labels.shape)], axis=-1).astype(np.uint8)
    Image.fromarray(pairs, "LA").save(path)
    return path


def coded_photo(width: int, height: int) -> tuple[Image.Image, np.ndarray]:
    """A photo whose red says what class a pixel has: 80 for each step, in four quarters."""
    labels = np.zeros((height, width), np.uint8)
    labels[height // 2 :] = 1
    labels[:, width // 2 :] = 2
    colors = np.zeros((height, width, 3), np.uint8)
    colors[..., 0] = 80 * labels + 40
    return Image.fromarray(colors), labels


def image_of(sample: StudentSample) -> torch.Tensor:
    return PackedViews.of([sample.view]).unpacked()[0]


def sample(tmp_path: Path, views: StudentViews, seed: int, size: tuple[int, int] = (90, 60)):
    photo, labels = coded_photo(*size)
    write_map(tmp_path / "labels" / "street.png", labels)
    config = tiny_student_config(labels=str(tmp_path / "labels"), views=views)
    return config.build_transform(None).sample(Source("photos/street.jpg", photo), seed)


@pytest.mark.parametrize("seed", range(12))
def test_labels_stay_on_their_pixels(tmp_path, seed):
    views = StudentViews(
        crop_px=64, side_px=48, zoom=(0.5, 2.0), mirror=0.5, jitter=(0.0, 0.0, 0.0, 0.0)
    )
    seen = sample(tmp_path, views, seed)
    assert (
        image_of(seen).shape == (3, 64, 64)
        and seen.labels.shape == (64, 64)
        and seen.labels.dtype == torch.uint8
    )
    painted = ((image_of(seen)[0] * 255 - 40) / 80).round()
    counts = seen.labels != IGNORE
    assert (painted == seen.labels)[
        counts
    ].float().mean() > 0.93  # the rest lies on a border, which is blurred
    assert (image_of(seen)[:, ~counts] * 255).round().unique().tolist() in ([128], [])  # padding


def test_a_photo_smaller_than_the_crop_is_padded(tmp_path):
    counts = sample(tmp_path, replace(PLAIN, crop_px=64), seed=0).labels != IGNORE
    rows, columns = counts.any(1).sum(), counts.any(0).sum()
    assert (rows, columns) == (
        32,
        48,
    ) and counts.sum() == 32 * 48  # 60 x 90 px at a shorter side of 32


def test_zoom_and_place_vary():
    views = StudentViews(crop_px=32, side_px=64, mirror=0.5)
    drawn = [_CropWindow.draw(np.random.default_rng(seed), (90, 60), views) for seed in range(40)]
    boxes = torch.tensor([window.box for window in drawn])
    heights = boxes[:, 3] - boxes[:, 1]
    assert boxes.min() >= 0 and boxes.max() <= 1
    assert heights.min() < 0.3 and heights.max() > 0.9
    assert boxes[:, 0].unique().numel() > 30


def test_maps_may_have_another_size_than_the_photo(tmp_path):
    photo, _ = coded_photo(90, 60)
    _, small = coded_photo(45, 30)
    write_map(tmp_path / "labels" / "street.png", small)
    transform = tiny_student_config(labels=str(tmp_path / "labels"), views=PLAIN).build_transform(
        None
    )
    seen = transform.sample(Source("street.jpg", photo), 3)
    assert (((image_of(seen)[0] * 255 - 40) / 80).round() == seen.labels).float().mean() > 0.93


def test_labels_below_their_class_threshold_are_ignored(tmp_path):
    path = write_map(
        tmp_path / "a.png", np.array([[0, 0, 1], [1, 2, 2]]), np.array([[9, 10, 10], [20, 0, 255]])
    )
    assert confident(path, (10, 11, 0)).tolist() == [[IGNORE, 0, IGNORE], [1, 2, 2]]
    with pytest.raises(ValueError, match="class 2: there are 2"):
        confident(path, (10, 11))
    Image.new("L", (3, 2)).save(path)
    with pytest.raises(ValueError, match="two channels"):
        confident(path, (10, 11, 0))
    with pytest.raises(FileNotFoundError, match=r"b\.png is missing"):
        confident(tmp_path / "b.png", (10, 11, 0))


def make_batch(labels: torch.Tensor, images: torch.Tensor | None = None) -> StudentBatch:
    images = torch.rand(len(labels), 3, *labels.shape[1:]) if images is None else images
    return StudentBatch(images, labels)


def test_loss_is_the_cross_entropy_of_scaled_cosines():
    student = tiny_student_config().build()
    labels = torch.randint(0, CLASSES, (2, 4, 3), dtype=torch.uint8)  # one for each patch
    batch = make_batch(labels.repeat_interleave(16, 1).repeat_interleave(16, 2))
    cosines = student.segment(batch.images, student.phrases)
    logits = 20 * torch.stack([cosines[:, 0], cosines[:, 1:3].amax(1), cosines[:, 3]], dim=1)
    enlarged = F.interpolate(logits, (64, 48), mode="bilinear", align_corners=False)
    losses = student(batch)
    assert_close(losses.terms["labels"], F.cross_entropy(enlarged, batch.labels.long()))
    assert_close(losses.metrics["agreement"], (logits.argmax(1) == labels).float().mean())
    assert losses.metrics["labeled"] == 1


def test_only_the_image_side_learns():
    student = tiny_student_config().build()
    learning = {
        name.split(".")[0] for name, weight in student.named_parameters() if weight.requires_grad
    }
    assert learning == {"image"}
    assert "phrases" in student.state_dict()


def test_student_learns_which_color_is_which():
    student = tiny_student_config().build()
    optimizer = torch.optim.AdamW([w for w in student.parameters() if w.requires_grad], lr=1e-3)

    def colored(seed: int) -> StudentBatch:
        labels = torch.randint(0, CLASSES, (6, 1, 2), generator=torch.Generator().manual_seed(seed))
        labels = labels.repeat_interleave(64, 1).repeat_interleave(48, 2)
        images = F.one_hot(labels, 3).movedim(-1, 1).float() * 0.8 + 0.1
        return make_batch(labels.to(torch.uint8), images)

    for step in range(60):
        optimizer.zero_grad()
        student(colored(step)).total.backward()
        optimizer.step()
    assert student.eval()(colored(1000)).metrics["agreement"] > 0.9


def test_without_labels_thresholds_or_classes_there_is_no_training(tmp_path):
    with pytest.raises(ValueError, match=r"method\.labels"):
        tiny_student_config().build_transform(None)
    with pytest.raises(ValueError, match="2 thresholds for 3 classes"):
        tiny_student_config(labels=str(tmp_path), thresholds=(1, 2)).build_transform(None)
    with pytest.raises(ValueError, match="without classes"):
        tiny_student_config().for_inference().build()(
            make_batch(torch.zeros(2, 32, 48, dtype=torch.uint8))
        )
    with pytest.raises(ValueError, match="72 does not divide"):
        tiny_student_config(views=StudentViews(crop_px=72)).build()
    with pytest.raises(ValueError, match="no tokenizer"):
        tiny_student_config().tokenizer_source()


def test_inference_needs_no_classes():
    lean = tiny_student_config(labels="x").for_inference()
    assert (lean.labels, lean.synonyms, lean.thresholds) == (None, (), ())
    assert isinstance(lean.build(), Student) and "phrases" not in lean.build().state_dict()
