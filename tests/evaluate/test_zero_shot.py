"""The zero-shot protocol, with a method that reads class ids off the colors: every score is known
beforehand.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from colors import Colors
from PIL import Image

from maskfree.data.benchmarks.catalog import BENCHMARKS, Benchmark, benchmark
from maskfree.data.benchmarks.coco import CocoInstances
from maskfree.data.benchmarks.index_maps import IndexMaps
from maskfree.evaluation.named_protocols import PROTOCOLS
from maskfree.evaluation.protocol import Protocol, check, prepare, record
from maskfree.evaluation.reporting.results import read_row, write_row
from maskfree.evaluation.result_cache import DistInfo
from maskfree.evaluation.zero_shot import EvalJob, measure, sweep
from maskfree.inference.calibration import Calibration
from maskfree.inference.config import Inference
from maskfree.inference.segmenter import Segmenter
from maskfree.types import Tokens

WORDS = benchmark("coco-mini").words()
COLOR_STEP = 12  # red value per class id
PERSON, CAR, DOG, SHEEP = (WORDS.index(word) for word in ("person", "car", "dog", "sheep"))
NOTHING = 20
OTHERS = {"wall": NOTHING}  # words that are no class
MOST_IDS = 300


def tokenize(texts):
    """One token: the class that the text names; 20 for "wall", and one of its own for any other
    word.
    """
    ids = []
    for text in texts:
        known = next((i for i, word in enumerate(WORDS) if text.endswith(word)), None)
        ids.append(
            OTHERS.setdefault(text.split()[-1], NOTHING + len(OTHERS)) if known is None else known
        )
    return Tokens(torch.tensor(ids)[:, None], torch.ones(len(ids), 1, dtype=torch.bool))


def photo(labels):
    """Paint each class in its color."""
    pixels = np.zeros((*labels.shape, 3), np.uint8)
    pixels[..., 0] = labels * COLOR_STEP
    return Image.fromarray(pixels)


def outline(left, top, right, bottom):
    return [[left, top, right, top, right, bottom, left, bottom]]


@pytest.fixture
def segmenter():
    return Segmenter(
        Colors(MOST_IDS, COLOR_STEP).eval(), tokenize, name="colors", weights_hash="0" * 64
    )


PROTOCOL = Protocol(inference=Inference(side_px=32))  # photos are seen at their own size


@pytest.fixture
def root(tmp_path):
    """Two photos of 48x32. Photo a: person on the left half, dog right of it, both painted truly
    but for a strip of 8 columns of the dog that looks like a car. Photo b: a dog in the left third,
    the rest no class and painted as one."""
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
        "images": [
            {"id": i, "file_name": f"{i}.png", "width": 48, "height": 32} for i in ("a", "b")
        ],
        "categories": [{"id": i, "name": name} for name, i in category.items()],
        "annotations": [
            {"image_id": "a", "category_id": 0, "area": 768, "segmentation": outline(0, 0, 24, 32)},
            {
                "image_id": "a",
                "category_id": category["dog"],
                "area": 768,
                "segmentation": outline(24, 0, 48, 32),
            },
            {
                "image_id": "b",
                "category_id": category["dog"],
                "area": 512,
                "segmentation": outline(0, 0, 16, 32),
            },
        ],
    }
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path


def work(root, bench=None, **settings):
    bench = bench or benchmark("coco-mini")
    return EvalJob(bench, bench.samples(root), "test", **settings)


def run(segmenter, root, protocol, bench=None):
    return measure(segmenter, protocol, work(root, bench)).row


def test_without_background_only_pixels_of_a_class_count(segmenter, root):
    row = run(segmenter, root, PROTOCOL)
    width_of_strip = 8  # of 24 columns of dog in a, besides 16 in b
    assert row.iou["person"] == 1
    assert row.iou["dog"] == pytest.approx(
        1 - width_of_strip / 40, abs=0.03
    )  # edges of patches are interpolated
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
    row = run(segmenter, root, Protocol(inference=Inference(side_px=16)))
    assert row.pixel_accuracy == pytest.approx(1 - 8 / 64, abs=0.05)


def test_a_row_carries_its_protocol(segmenter, root):
    bench = benchmark("coco-mini")
    row = run(segmenter, root, replace(PROTOCOL, names="synonyms", background="threshold:0.4"))
    assert row.protocol["names"] == "synonyms"
    assert row.protocol["background"] == "threshold:0.4"
    assert row.protocol["side_px"] == 32
    assert row.protocol["templates"] == ["a photo of a {}"]
    assert row.names_sha256 == bench.names_sha256("synonyms") != bench.names_sha256("plain")
    assert (row.num_photos, row.model, row.weights_sha256) == (2, "colors", "0" * 64)
    assert (
        row.versions["torch"] == torch.__version__.split("+")[0]
        or row.versions["torch"] == torch.__version__
    )
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

    measure(segmenter, PROTOCOL, work(root, watch=watch))
    assert seen == ["images/a.png", "images/b.png"]


@pytest.mark.parametrize(
    ("bench", "protocol", "message"),
    [
        ("coco-mini", Protocol(names="nick"), "coco-mini has no name set 'nick'"),
        ("coco-mini", Protocol(background="threshold:2"), "is not a cosine"),
        ("camvid", Protocol(background="threshold:0.3"), "camvid does not label its background"),
        ("camvid", Protocol(candidates="unseen"), "camvid has no unseen classes"),
        (
            "coco-mini",
            Protocol(scored="unseen", background="threshold:0.3"),
            "without a background rule",
        ),
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
        run(segmenter, tmp_path, Protocol(inference=Inference(side_px=8)), bench)


def test_an_overlap_is_judged_by_the_object_on_top(segmenter, root):
    """Turn photo b's rest into a person that lies under the dog: without background it then counts,
    as a miss.
    """
    content = json.loads((root / "instances.json").read_text())
    content["annotations"].append(
        {"image_id": "b", "category_id": 0, "area": 1536, "segmentation": outline(0, 0, 48, 32)}
    )
    (root / "instances.json").write_text(json.dumps(content))
    row = run(
        segmenter,
        root,
        PROTOCOL,
        Benchmark("x", "", CocoInstances(renamed="coco_to_voc20"), {"plain": "voc20"}),
    )
    assert row.iou["person"] == pytest.approx(24 / (24 + 32), abs=0.03)


@pytest.fixture
def flock(root):
    """Photo b's rest becomes a sheep that looks like no class: sheep is one of the unseen classes,
    person is not.
    """
    content = json.loads((root / "instances.json").read_text())
    sheep = next(c["id"] for c in content["categories"] if c["name"] == "sheep")
    content["annotations"].append(
        {
            "image_id": "b",
            "category_id": sheep,
            "area": 1024,
            "segmentation": outline(16, 0, 48, 32),
        }
    )
    (root / "instances.json").write_text(json.dumps(content))
    labels = np.full((32, 48), SHEEP)
    labels[:, :16] = DOG
    labels[:, 32:] = PERSON  # a third of the photo that is wrong
    photo(labels).save(root / "images" / "b.png")
    return root


def test_unseen_classes_alone_are_candidates_and_count(segmenter, flock):
    row = run(segmenter, flock, replace(PROTOCOL, candidates="unseen", scored="unseen"))
    assert list(row.iou) == ["potted plant", "sheep", "sofa", "train", "tv monitor"]
    assert row.iou["sheep"] is not None
    assert row.parts == {}
    assert row.pixel_accuracy == pytest.approx(row.mean_accuracy)  # of sheep only


def test_unseen_classes_among_all_lose_what_goes_to_seen_ones(segmenter, flock):
    row = run(segmenter, flock, replace(PROTOCOL, scored="unseen"))
    assert len(row.iou) == 20
    assert row.mean_iou == row.iou["sheep"] == pytest.approx(0.5, abs=0.03)
    assert row.pixel_accuracy == pytest.approx(0.5, abs=0.03)


def test_parts_of_the_classes_have_means_of_their_own(segmenter, flock):
    row = run(segmenter, flock, PROTOCOL)
    seen = [row.iou[name] for name in ("person", "dog", "car")]
    assert row.parts["unseen classes"] == row.iou["sheep"]
    assert row.parts["seen classes"] == pytest.approx(np.mean(seen))
    a, b = row.parts["unseen classes"], row.parts["seen classes"]
    assert row.parts["harmonic mean of classes"] == pytest.approx(2 / (1 / a + 1 / b))
    assert "seen entities" not in row.parts  # every class of VOC is an entity by one of its names


@pytest.fixture
def numbered(flock):
    """The photos are named 000000000012 and 7, as COCO numbers them, and a third one is 30."""
    content = json.loads((flock / "instances.json").read_text())
    names = {"a": "000000000012.png", "b": "7.png"}
    for image in content["images"]:
        new = names[image["id"]]
        (flock / "images" / image["file_name"]).rename(flock / "images" / new)
        image["file_name"] = new
    photo(np.full((32, 48), DOG)).save(flock / "images" / "30.png")
    content["images"].append({"id": "c", "file_name": "30.png", "width": 48, "height": 32})
    dog = {**content["annotations"][1], "image_id": "c", "segmentation": outline(0, 0, 30, 32)}
    content["annotations"].append(dog)
    (flock / "instances.json").write_text(json.dumps(content))
    return flock


@pytest.mark.parametrize(
    "protocol",
    [
        PROTOCOL,
        replace(PROTOCOL, background="threshold:0.4"),
        replace(PROTOCOL, scored="unseen"),
    ],
    ids=["plain", "background", "unseen"],
)
def test_halves_equal_runs_on_their_photos_alone(segmenter, numbered, protocol):
    every = work(numbered)
    row = measure(segmenter, protocol, every).row
    for name, numbers in (("even ids", ("000000000012", "30")), ("odd ids", ("7",))):
        own = [sample for sample in every.samples if sample.photo.stem in numbers]
        alone = measure(segmenter, protocol, replace(every, samples=own)).row
        assert row.parts[name] == pytest.approx(alone.mean_iou, nan_ok=True)
        assert row.parts[f"{name}, accuracy"] == alone.pixel_accuracy
        assert "even ids" not in alone.parts  # of one half there is nothing to tell apart
    if protocol.scored == "all":
        assert row.parts["even ids"] != row.parts["odd ids"]


def test_a_sweep_has_the_halves_of_each_threshold(segmenter, numbered):
    swept = sweep(segmenter, PROTOCOL, (0.0, 0.4, 1.0), work(numbered))
    for row in swept:
        alone = run(segmenter, numbered, replace(PROTOCOL, background=row.protocol["background"]))
        assert row.parts == alone.parts
    assert swept[0].parts["odd ids"] != swept[-1].parts["odd ids"]


def test_halves_are_those_of_all_processes(segmenter, numbered):
    """What a process adds to the sum is its own photos' share."""
    shares, whole = [], []
    for index in (0, 1):
        kept = shares.append
        team = DistInfo(index, 2, lambda tensor, keep=kept: keep(tensor.clone()) or tensor)
        measure(segmenter, PROTOCOL, work(numbered, team=team))
    team = DistInfo(total=lambda tensor: whole.append(tensor.clone()) or tensor)
    measure(segmenter, PROTOCOL, work(numbered, team=team))
    # The last tensor of a run is that of the even half.
    assert torch.equal(whole[-1], shares[len(shares) // 2 - 1] + shares[-1])
    assert whole[-1].shape == (1, 20, 20)
    assert whole[-1].any()


def test_only_benchmarks_that_say_so_and_number_their_photos_have_halves(segmenter, flock):
    assert "even ids" not in run(segmenter, flock, PROTOCOL).parts  # named a and b
    assert {name for name, bench in BENCHMARKS.items() if bench.halves} == {
        "coco-mini",
        "coco-mini-80",
    }


def test_a_benchmark_that_does_not_say_so_has_no_halves(segmenter, numbered):
    bench = replace(benchmark("coco-mini"), halves=False)
    assert set(run(segmenter, numbered, PROTOCOL, bench).parts) == {
        "unseen classes",
        "seen classes",
        "harmonic mean of classes",
    }


def test_the_largest_confusions_are_named(segmenter, flock):
    row = run(segmenter, flock, PROTOCOL)
    (true, said, share), *_ = row.confusions
    assert (true, said) == ("sheep", "person")
    assert share == pytest.approx(16 / 96, abs=0.02)


def test_each_photo_has_its_own_mean(segmenter, flock):
    measured = measure(segmenter, PROTOCOL, work(flock))
    assert measured.photos.shape == (2,)
    assert measured.photos[0] == pytest.approx((1 + 2 / 3 + 0) / 3, abs=0.02)  # person, dog, car


def test_a_sweep_equals_measuring_with_each_threshold(segmenter, root):
    thresholds = (0.0, 0.4, 0.7, 1.0)
    swept = sweep(segmenter, PROTOCOL, thresholds, work(root))
    assert [row.protocol["background"] for row in swept] == [f"threshold:{t:g}" for t in thresholds]
    for row in swept:
        alone = run(segmenter, root, replace(PROTOCOL, background=row.protocol["background"]))
        assert (row.iou, row.pixel_accuracy, row.protocol) == (
            alone.iou,
            alone.pixel_accuracy,
            alone.protocol,
        )
    assert swept[0].iou != swept[-1].iou


def test_a_sweep_of_products_has_the_rule_in_each_window(segmenter, root):
    product = Protocol(inference=Inference(side_px=32, score="product"))
    (low, high) = sweep(segmenter, product, (0.0, 0.9), work(root))
    alone = run(segmenter, root, replace(product, background="threshold:0.9"))
    assert high.iou == alone.iou
    assert low.iou["background"] == 0


def test_a_killed_run_goes_on(segmenter, root, tmp_path):
    """The first try breaks at the second photo; the second try reads only that one."""
    whole = measure(segmenter, PROTOCOL, work(root))
    folder = tmp_path / "unfinished"

    def break_off(samples):
        for number, sample in enumerate(samples):
            if number:
                raise KeyboardInterrupt
            yield sample

    with pytest.raises(KeyboardInterrupt):
        measure(segmenter, PROTOCOL, work(root, unfinished=folder, watch=break_off))
    (file,) = folder.iterdir()
    with file.open("a") as half:
        half.write('{"key": "images/b.png", "sha')  # as a kill may leave it
    seen = []

    def watch(samples):
        seen.extend(sample.key for sample in samples)
        return iter(samples)

    after = measure(segmenter, PROTOCOL, work(root, unfinished=folder, watch=watch))
    assert seen == ["images/b.png"]
    assert (after.row.iou, after.row.confusions) == (whole.row.iou, whole.row.confusions)
    assert np.array_equal(after.photos, whole.photos, equal_nan=True)
    assert not folder.exists()


def test_another_protocol_does_not_meet_the_counts_of_a_stopped_one(segmenter, root, tmp_path):
    folder, seen = tmp_path / "unfinished", []

    def break_off(samples):
        yield samples[0]
        raise KeyboardInterrupt

    def watch(samples):
        seen.extend(samples)
        return iter(samples)

    with pytest.raises(KeyboardInterrupt):
        measure(segmenter, PROTOCOL, work(root, unfinished=folder, watch=break_off))
    measure(
        segmenter,
        Protocol(inference=Inference(side_px=16)),
        work(root, unfinished=folder, watch=watch),
    )
    assert len(seen) == 2
    assert len(list(folder.iterdir())) == 1  # what was stopped still waits


def test_the_shares_of_a_team_add_up(segmenter, root):
    """Each process counts its own photos; the sums of both are what one process counts."""
    parts = []
    for index in (0, 1, 2):  # the third has no photo
        seen = []

        def watch(samples, seen=seen):
            seen.extend(sample.key for sample in samples)
            return iter(samples)

        def keep(tensor, index=index):
            parts.append((index, tensor.clone()))
            return tensor

        measure(segmenter, PROTOCOL, work(root, team=DistInfo(index, 3, keep), watch=watch))
        assert len(seen) == (index < 2)
    alone = []
    measure(
        segmenter, PROTOCOL, work(root, team=DistInfo(total=lambda t: alone.append(t.clone()) or t))
    )
    each = [[tensor for index, tensor in parts if index == i] for i in (0, 1, 2)]
    for whole, *shares in zip(alone, *each, strict=True):
        if whole.numel() > 1:  # all but the seconds
            assert torch.equal(whole, sum(shares))


def test_boundaries_are_measured_when_asked(segmenter, root):
    assert run(segmenter, root, PROTOCOL).boundary_f is None
    assert 0 < measure(segmenter, PROTOCOL, work(root, boundaries=True)).row.boundary_f <= 1


def test_a_setting_that_a_protocol_has_itself_is_refused_among_its_inference_settings():
    for name, value in {"smooth": 3, "class_prior": 0.5}.items():
        with pytest.raises(ValueError, match=f"inference.{name} is set"):
            Protocol(inference=Inference(**{name: value}))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_fits_every_benchmark_or_says_why(name):
    for bench in (
        benchmark("coco-mini"),
        benchmark("voc21"),
        benchmark("coco-object"),
        benchmark("ade20k"),
    ):
        for protocol in PROTOCOLS[name](bench):
            if "unseen" in (protocol.candidates, protocol.scored) and not bench.unseen:
                with pytest.raises(ValueError, match="no unseen classes"):
                    check(bench, protocol)
            else:
                check(bench, protocol)


def test_the_published_protocols_are_free_of_our_smoothing(segmenter):
    own = replace(segmenter, inference=Inference(smooth=5, class_prior=1.5, class_level=0.3))
    bench = benchmark("coco-mini")
    for name in set(PROTOCOLS) - {"own"}:
        (protocol,) = PROTOCOLS[name](bench)
        inference = prepare(own, bench, protocol).inference
        assert (inference.smooth, inference.class_prior, inference.class_level) == (1, 0, 0)
    assert prepare(own, bench, PROTOCOLS["own"](bench)[0]).inference == own.inference


@pytest.mark.parametrize("name", ["unseen", "unseen-among-all", "all-as-unseen"])
def test_vil_segs_protocols_have_its_prompt_and_the_models_groups(segmenter, name, monkeypatch):
    monkeypatch.setattr(type(segmenter.method), "grouped", lambda method, grouping: method)
    bench = benchmark("coco-mini")
    many = replace(segmenter, templates=("a {}", "the {}"))
    (protocol,) = PROTOCOLS[name](bench)
    assert prepare(many, bench, protocol).templates == ("a photo of a {}",)
    settled = replace(many, inference=Inference(grouping="kmeans"))
    assert prepare(settled, bench, protocol).inference.grouping == "kmeans"


def test_groups_of_pixels_are_in_a_row_where_they_are_chosen(segmenter, monkeypatch):
    monkeypatch.setattr(type(segmenter.method), "grouped", lambda method, grouping: method)
    bench = benchmark("coco-mini")
    chosen = replace(PROTOCOL, inference=Inference(grouping="pixels"))
    assert record(prepare(segmenter, bench, chosen), chosen)["grouping"] == "pixels"
    assert "grouping" not in record(prepare(segmenter, bench, PROTOCOL), PROTOCOL)


def test_protocols_have_the_sizes_of_their_sources():
    bench = benchmark("voc21")
    (tcl,), (sclip,), (groupvit,) = (
        PROTOCOLS[name](bench) for name in ("tcl", "sclip", "groupvit")
    )

    def sizes(protocol):
        """Sizes of the photo, the windows and their stride."""
        settings = protocol.inference
        return settings.side_px, settings.window_px, settings.stride_px

    assert (sizes(tcl), tcl.names) == ((448, 448, 224), "plain")
    assert (sizes(sclip), sclip.inference.score) == ((336, 224, 112), "softmax")
    assert sclip.background.count(",") == 25
    assert (groupvit.background, groupvit.inference.score) == ("threshold:0.9", "product")
    assert PROTOCOLS["groupvit"](benchmark("context60"))[0].background == "threshold:0.35"
    assert "bed" not in PROTOCOLS["sclip"](benchmark("coco-object"))[0].background.split(",")


def test_a_measured_row_survives_the_file(segmenter, root, tmp_path):
    row = run(segmenter, root, PROTOCOL)
    assert read_row(write_row(row, tmp_path)) == row


def test_the_model_is_asked_for_the_words_of_the_name_set(root):
    asked = []

    def listen(texts):
        asked.extend(texts)
        return tokenize(texts)

    segmenter = Segmenter(Colors(MOST_IDS, COLOR_STEP).eval(), listen, name="colors")
    run(segmenter, root, PROTOCOL)
    assert list(dict.fromkeys(asked)) == [f"a photo of a {word}" for word in WORDS]
    run(segmenter, root, replace(PROTOCOL, names="synonyms"))
    assert {"a photo of a couch", "a photo of a man", "a photo of a kitten"} <= set(asked)


def test_the_calibration_error_is_that_of_all_pixels(segmenter, root):
    row = run(segmenter, root, PROTOCOL)
    chosen = prepare(segmenter, benchmark("coco-mini"), PROTOCOL)
    lookup = {"a": [(PERSON, 0, 24), (DOG, 24, 48)], "b": [(DOG, 0, 16)]}

    confidences, rights = [], []
    for name, parts in lookup.items():
        result = chosen(root / "images" / f"{name}.png")
        for true, left, right in parts:
            confidences.append(result.confidence[:, left:right].ravel())
            rights.append(result.labels[:, left:right].ravel() == true)
    confidence, right = np.concatenate(confidences), np.concatenate(rights)
    assert row.pixel_accuracy == right.mean()

    bins = np.minimum((confidence.astype(np.float32) * 15).astype(int), 14)
    expected = 0.0
    for number, (share, mean, accuracy) in enumerate(row.reliability["bins"]):
        inside = bins == number
        assert share == pytest.approx(inside.mean())
        if not inside.any():
            assert mean is accuracy is None
            continue
        assert mean == pytest.approx(confidence[inside].mean(dtype=float))
        assert accuracy == pytest.approx(right[inside].mean())
        expected += inside.mean() * abs(mean - accuracy)
    assert row.reliability["ece"] == pytest.approx(expected, abs=1e-6)
    assert row.reliability["temperature"] == 1 / segmenter.logit_scale

    # Another temperature changes the confidences, and no label.
    cooler = replace(segmenter, calibration=Calibration(temperature=0.01))
    other = run(cooler, root, PROTOCOL)
    assert other.reliability["temperature"] == 0.01
    assert other.reliability["ece"] != row.reliability["ece"]
    assert other.iou == row.iou
    # A sweep changes labels after the fact.
    assert [each.reliability for each in sweep(segmenter, PROTOCOL, [0.1], work(root))] == [None]


def test_confidences_of_a_stopped_run_count_once(segmenter, root, tmp_path):
    whole = run(segmenter, root, PROTOCOL)

    def stopping(samples):
        yield samples[0]
        raise KeyboardInterrupt

    unfinished = tmp_path / "unfinished"
    with pytest.raises(KeyboardInterrupt):
        measure(segmenter, PROTOCOL, work(root, unfinished=unfinished, watch=stopping))
    again = measure(segmenter, PROTOCOL, work(root, unfinished=unfinished)).row
    assert again.reliability == whole.reliability
