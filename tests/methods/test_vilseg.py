"""ViL-Seg's wiring: where gradients go, what is undone, what is averaged, and that it learns."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.sample import Source
from maskfree.losses.contrastive import image_to_text, info_nce
from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information
from maskfree.methods.vilseg.batch import ViLSegBatch
from maskfree.methods.vilseg.config import ClusterConfig, ViLSegConfig, VisionConfig
from maskfree.nn import encoded_view, pixel_groups
from maskfree.nn.contrastive_config import ContrastiveConfig
from maskfree.types import Tokens
from tiny import CAPTIONS, spread_out, tiny_vilseg_config

SIDES = (48, 80)  # 3 x 5 patches


class ColorEncoder(nn.Module):
    """Each patch's mean color, mapped to four channels: it has no notion of left and right."""

    patch_size, channels = 16, 4

    def __init__(self):
        super().__init__()
        self.map = nn.Linear(3, 4)

    def forward(self, images):
        return self.map(F.avg_pool2d(images, self.patch_size).movedim(1, -1)).movedim(-1, 1)


def color_method(config: ViLSegConfig):
    method = config.build()
    method.image.encoder = ColorEncoder()
    method.image.projection = config.image_projection.build_for_pixels(4, config.embed_dim)
    return method


def make_batch(tokenizer, size: int = 6, views: int = 3) -> ViLSegBatch:
    images = (
        torch.rand(size, 3, SIDES[0] // 16, SIDES[1] // 16)
        .repeat_interleave(16, 2)
        .repeat_interleave(16, 3)
    )
    flipped = torch.arange(size) % 2 == 0
    augmented_view = torch.where(flipped[:, None, None, None], images.flip(-1), images) * 0.9
    return ViLSegBatch(
        images=images,
        captions=tokenizer((CAPTIONS * 2)[:size]),
        local_views=torch.rand(size, views, 3, 32, 32),
        augmented_view=augmented_view,
        augmented_flipped=flipped,
    )


def only(**parts):
    return tiny_vilseg_config(**({"vision": None, "cluster": None, "grouping": "pixels"} | parts))


def gradients(module: nn.Module) -> float:
    return sum(float(p.grad.abs().sum()) for p in module.parameters() if p.grad is not None)


def test_each_term_is_switched_by_its_config(tiny_tokenizer):
    batch = make_batch(tiny_tokenizer)
    assert set(only().build()(batch).terms) == {"cross"}
    assert set(tiny_vilseg_config(cluster=None, grouping="pixels").build()(batch).terms) == {
        "cross",
        "vision",
    }
    assert set(tiny_vilseg_config(vision=None).build()(batch).terms) == {"cross", "cluster"}
    with pytest.raises(ValueError, match="nothing to learn"):
        only().build()(replace(batch, captions=None))
    with pytest.raises(ValueError, match="needs the clustering head"):
        tiny_vilseg_config(cluster=None).build()


def test_weights_scale_their_terms(tiny_tokenizer):
    batch = make_batch(tiny_tokenizer)
    config = tiny_vilseg_config()
    weighted = replace(
        config,
        cross=ContrastiveConfig(weight=2.0),
        vision=replace(config.vision, weight=3.0),
        cluster=replace(config.cluster, weight=5.0),
    )
    plain, heavy = config.build(), weighted.build()
    heavy.load_state_dict(plain.state_dict())
    first, second = plain(batch), heavy(batch)
    for name, factor in {"cross": 2, "vision": 3, "cluster": 5}.items():
        assert_close(second.terms[name], factor * first.terms[name])
    assert_close(first.total, first.terms["cross"] + first.terms["vision"] + first.terms["cluster"])


@pytest.mark.parametrize(("symmetric", "loss"), [(True, info_nce), (False, image_to_text)])
def test_image_embedding_is_the_mean_of_its_pixels(tiny_tokenizer, symmetric, loss):
    batch, method = (
        make_batch(tiny_tokenizer),
        only(cross=ContrastiveConfig(symmetric=symmetric)).build(),
    )
    image = F.normalize(method.image(batch.images).mean((2, 3)), dim=1)
    expected = loss(image, method.encode_text(batch.captions), torch.tensor(1 / 0.07))
    assert_close(method(batch).terms["cross"], expected)


def test_scale_stays_in_its_bounds(tiny_tokenizer):
    method = only().build()
    with torch.no_grad():
        method.cross.log_scale.fill_(9.0)
    assert_close(method(make_batch(tiny_tokenizer)).metrics["logit_scale"], torch.tensor(100.0))
    method.after_step(0, 10)
    assert_close(method.cross.log_scale.exp().detach(), torch.tensor(100.0))
    method(make_batch(tiny_tokenizer)).total.backward()
    assert method.cross.log_scale.grad != 0


def test_gradient_of_the_clusters_stops_at_the_encoder(tiny_tokenizer):
    method = tiny_vilseg_config(vision=None, cluster=ClusterConfig(num_clusters=5)).build()
    method(make_batch(tiny_tokenizer)).terms["cluster"].backward()
    assert gradients(method.cluster) > 0
    assert gradients(method.image) == 0
    assert gradients(method.text) == 0


def test_mirrored_twins_are_mirrored_back(tiny_tokenizer):
    """For an encoder that does not know left from right, mirroring the augmented view then changes
    nothing.
    """
    method = color_method(tiny_vilseg_config(vision=None))
    batch = make_batch(tiny_tokenizer)
    straight = replace(
        batch,
        augmented_view=batch.images * 0.9,
        augmented_flipped=torch.zeros_like(batch.augmented_flipped),
    )
    expected = method(straight).terms["cluster"]
    assert_close(method(batch).terms["cluster"], expected)
    wrong = replace(batch, augmented_flipped=~batch.augmented_flipped)
    assert not torch.isclose(method(wrong).terms["cluster"], expected, rtol=1e-6)


def test_cluster_term_is_minus_mutual_information_and_can_be_learned(tiny_tokenizer):
    method = color_method(tiny_vilseg_config(vision=None))
    batch = make_batch(tiny_tokenizer)
    pixels = method.image(batch.images)
    expected = co_occurrence(
        method.cluster.head(pixels), method.cluster.head(method.image(batch.images * 0.9))
    )
    assert_close(method(batch).terms["cluster"], negative_mutual_information(expected))
    optimizer = torch.optim.Adam(method.cluster.parameters(), lr=0.5)
    for _ in range(150):
        optimizer.zero_grad()
        losses = method(batch)
        losses.terms["cluster"].backward()
        optimizer.step()
    assert losses.terms["cluster"] < -0.5 * math.log(5)
    assert losses.metrics["clusters_in_use"] >= 3
    assert losses.metrics["cluster_entropy"] > 0.5 * math.log(5)
    assert losses.metrics["cluster_conditional_entropy"] < 0.5 * losses.metrics["cluster_entropy"]


def test_teacher_and_text_get_no_gradient_from_l_vision(tiny_tokenizer):
    method = tiny_vilseg_config().build()
    before = {
        name: value.clone()
        for name, value in method.vision.state_dict().items()
        if "teacher" in name
    }
    method(make_batch(tiny_tokenizer)).terms["vision"].backward()
    assert gradients(method.image) > 0 and gradients(method.vision.head) > 0
    assert gradients(method.vision.teacher) == 0 == gradients(method.text)
    assert before and all(
        torch.equal(method.vision.state_dict()[name], value) for name, value in before.items()
    )


def test_teacher_follows_the_student_with_a_rising_momentum(tiny_tokenizer):
    method = tiny_vilseg_config(
        vision=VisionConfig(out_dim=14, num_local_views=3, teacher_momentum=0.9)
    ).build()
    student, teacher = method.image.projection.weight, method.vision.teacher.projection.weight
    with torch.no_grad():
        student += 1
    for step, momentum in [(0, 0.9), (5, 0.95), (10, 1.0)]:
        before = teacher.clone()
        method.after_step(step, 10)
        assert_close(teacher, momentum * before + (1 - momentum) * student)


def test_a_frozen_encoder_runs_once_and_the_losses_are_bit_equal(tiny_tokenizer, monkeypatch):
    method, batch = tiny_vilseg_config().build().train(), make_batch(tiny_tokenizer)
    method.on_train_start()
    method.image.encoder.requires_grad_(False)
    passes = []
    for encoder in (method.image.encoder, method.vision.teacher.encoder):
        encoder.register_forward_hook(lambda *_: passes.append(1))

    shared = method(batch).terms
    assert len(passes) == 3  # the photos, their local views and their augmented views
    monkeypatch.setattr(encoded_view, "_are_equal", lambda one, other: False)
    apart = method(batch).terms
    assert len(passes) == 7
    assert all(torch.equal(shared[name], apart[name]) for name in apart)


def test_center_is_the_running_mean_of_the_teachers_logits(tiny_tokenizer):
    method, batch = tiny_vilseg_config().build(), make_batch(tiny_tokenizer)
    vision = method.vision
    logits = vision.teacher_head(vision.teacher(batch.images).mean((2, 3)))
    first = method(batch).terms["vision"]
    assert_close(method(batch).terms["vision"], first)  # nothing moves within a step
    method.after_step(0, 100)
    assert_close(vision.center, 0.1 * logits.mean(0))
    method.eval()(batch)
    method.after_step(1, 100)
    assert_close(vision.center, 0.1 * logits.mean(0))  # looking at held-out photos does not count
    assert "vision.center" in method.state_dict()


def test_literal_l_vision_moves_the_global_side_too(tiny_tokenizer):
    batch = make_batch(tiny_tokenizer)
    config = tiny_vilseg_config(vision=VisionConfig(mode="literal", out_dim=14, num_local_views=3))
    method = config.build()
    images = batch.images.clone().requires_grad_()
    method(replace(batch, images=images)).terms["vision"].backward()
    assert images.grad.abs().sum() > 0
    assert not any("teacher" in name for name in method.state_dict())


def test_regions_take_the_class_of_their_mean(tiny_vilseg):
    images, classes = torch.rand(2, 3, *SIDES), F.normalize(torch.randn(7, 18), dim=1)
    with torch.no_grad():
        pixels = tiny_vilseg.image(images)
        labels = tiny_vilseg.cluster.head(pixels).argmax(1)
        scores = tiny_vilseg.segment(images, classes)
    assert len(labels.unique()) > 1
    for photo in range(2):
        for cluster in labels[photo].unique():
            inside = labels[photo] == cluster
            region = F.normalize(pixels[photo][:, inside].mean(1), dim=0)
            assert_close(
                scores[photo][:, inside], (classes @ region)[:, None].expand(-1, int(inside.sum()))
            )


def test_soft_regions_are_means_of_all_pixels_that_are_read_by_all(tiny_vilseg):
    method = tiny_vilseg_config(vision=None, assignment="soft").build().eval()
    method.load_state_dict(tiny_vilseg.state_dict())
    images, classes = torch.rand(2, 3, *SIDES), F.normalize(torch.randn(7, 18), dim=1)
    with torch.no_grad():
        pixels = method.image(images)
        shares = method.cluster.head(pixels)
        scores = method.segment(images, classes)
    row, column = 1, 2
    regions = [F.normalize((shares[1, c] * pixels[1]).sum((1, 2)), dim=0) for c in range(5)]
    expected = sum(shares[1, c, row, column] * (classes @ regions[c]) for c in range(5))
    assert_close(scores[1, :, row, column], expected)


@pytest.mark.parametrize(
    ("grouping", "settings"),
    [
        ("clusters", {"assignment": "hard"}),
        ("soft clusters", {"assignment": "soft"}),
        ("kmeans", {"grouping": "kmeans"}),
        ("pixels", {"grouping": "pixels"}),
    ],
)
def test_regions_are_chosen_at_inference_of_one_checkpoint(tiny_vilseg, grouping, settings):
    saved = tiny_vilseg_config(vision=None, grouping="pixels").for_inference().build().eval()
    saved.load_state_dict(tiny_vilseg.state_dict())
    built = tiny_vilseg_config(vision=None, **settings).build().eval()
    built.load_state_dict(tiny_vilseg.state_dict())
    images, classes = torch.rand(2, 3, *SIDES), F.normalize(torch.randn(7, 18), dim=1)
    plain = saved.segment(images, classes)
    scores = saved.grouped(grouping).segment(images, classes)
    assert torch.equal(scores, built.segment(images, classes))
    assert torch.equal(scores, plain) == (grouping == "pixels")
    assert torch.equal(saved.segment(images, classes), plain)
    assert saved.grouped("own") is saved


def test_clusters_need_a_head():
    headless = only(grouping="pixels").build()
    assert headless.grouped("kmeans") is not headless
    with pytest.raises(ValueError, match="grouping by soft clusters needs the online clustering"):
        headless.grouped("soft clusters")


def test_every_pixel_for_itself(tiny_vilseg):
    method = tiny_vilseg_config(vision=None, grouping="pixels").build().eval()
    method.load_state_dict(tiny_vilseg.state_dict())
    images, classes = torch.rand(2, 3, *SIDES), F.normalize(torch.randn(7, 18), dim=1)
    pixels = F.normalize(method.image(images), dim=1)
    assert_close(method.segment(images, classes), torch.einsum("bdhw,kd->bkhw", pixels, classes))


def test_kmeans_groups_look_alike_patches(monkeypatch):
    monkeypatch.setattr(pixel_groups, "_KMEANS_CLUSTERS", 2)
    method = color_method(only(grouping="kmeans")).eval()
    images = torch.zeros(1, 3, *SIDES)
    images[:, 0, :, 48:] = 1
    images += 0.01 * torch.rand_like(images)
    scores = method.segment(images, F.normalize(torch.randn(7, 18), dim=1))
    assert_close(scores[..., :3], scores[..., :1, :1].expand(-1, -1, 3, 3))
    assert_close(scores[..., 3:], scores[..., :1, 4:].expand(-1, -1, 3, 2))
    assert not torch.allclose(scores[..., 0], scores[..., 4], atol=1e-3)


def test_two_processes_give_the_gradient_of_one(tiny_tokenizer):
    """Each half sees the other's features through `gather`; gradients are averaged, as DDP does.

    Processes are played one after the other: a process's own part of a gathered tensor carries
    twice its gradient, which is what the backward sum over two processes with equal losses comes
    to.
    """
    config = tiny_vilseg_config(cluster=ClusterConfig(num_clusters=5))
    whole, method = make_batch(tiny_tokenizer, size=6), spread_out(config.build())
    processes = [config.build() for _ in range(2)]
    halves = [part_of(whole, slice(0, 3)), part_of(whole, slice(3, 6))]
    sent: list[list[torch.Tensor]] = [[], []]
    for rank, process in enumerate(processes):
        process.load_state_dict(method.state_dict())
        process.gather = lambda tensor, rank=rank: sent[rank].append(tensor.detach()) or tensor
        process.eval()(halves[rank])
        process.train()
    summed: dict[str, torch.Tensor] = {}
    for rank, process in enumerate(processes):
        received = iter(sent[1 - rank])

        def gather(tensor, rank=rank, received=received):
            parts = [tensor.detach() + 2 * (tensor - tensor.detach()), next(received)]
            return torch.cat(parts if rank == 0 else parts[::-1])

        process.gather = gather
        process(halves[rank]).total.backward()
        assert next(received, None) is None
        for name, parameter in process.named_parameters():
            if parameter.grad is not None:
                summed[name] = summed.get(name, 0) + parameter.grad / 2
    method(whole).total.backward()
    for name, parameter in method.named_parameters():
        if parameter.grad is not None:
            assert_close(summed.pop(name), parameter.grad, atol=1e-5, rtol=1e-3)
    assert not summed
    for either in (method, *processes):
        either.after_step(0, 10)
        assert_close(either.vision.center, method.vision.center, atol=1e-6, rtol=1e-4)


def part_of(batch: ViLSegBatch, rows: slice) -> ViLSegBatch:
    tensors = {
        name: value[rows] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)
    }
    return replace(
        batch, **tensors, captions=Tokens(batch.captions.ids[rows], batch.captions.mask[rows])
    )


def test_transform_fills_what_the_terms_need(tiny_tokenizer, photo):
    config = tiny_vilseg_config()
    transform = config.build_transform(tiny_tokenizer)
    samples = [
        transform.sample(Source(str(i), photo((90, 61)), CAPTIONS[:3]), seed=i) for i in range(24)
    ]
    batch = transform.collate(samples).to(torch.device("cpu"))
    assert batch.images.shape == batch.augmented_view.shape == (24, 3, 64, 64)
    assert batch.local_views.shape == (24, 3, 3, 32, 32)
    assert {sample.caption for sample in samples} == set(CAPTIONS[:3])
    flips = [sample.view.flipped for sample in samples]
    local_flips = [view.flipped for sample in samples for view in sample.local_views]
    for flags in (flips, local_flips, batch.augmented_flipped.tolist()):
        assert 0 < sum(flags) < len(flags)
    boxes = torch.tensor([sample.view.box for sample in samples])
    assert (boxes[:, 2:] - boxes[:, :2] > 0).all() and boxes.min() >= 0 and boxes.max() <= 1
    lean = only().build_transform(None)
    bare = lean.collate([lean.sample(Source("a", photo()), seed=0)]).to(torch.device("cpu"))
    assert (
        bare.captions is bare.local_views is bare.augmented_view is bare.augmented_flipped is None
    )


def test_recorded_geometry_is_that_of_the_view(tiny_tokenizer, photo):
    """The picture's red and green are its x and y, so a view's own colors tell where it was cut."""
    config = replace(
        tiny_vilseg_config(), views=replace(tiny_vilseg_config().views, jitter=(0.0, 0.0, 0.0, 0.0))
    )
    transform = config.build_transform(tiny_tokenizer)
    samples = [
        transform.sample(Source(str(i), photo((200, 300)), CAPTIONS), seed=i) for i in range(8)
    ]
    batch = transform.collate(samples).to(torch.device("cpu"))
    views = [(batch.images, [sample.view for sample in samples])]
    views += [
        (batch.local_views[:, v], [sample.local_views[v] for sample in samples]) for v in range(3)
    ]
    for images, geometry in views:
        boxes = torch.tensor([view.box for view in geometry])
        flipped = torch.tensor([view.flipped for view in geometry])
        upright = torch.where(flipped[:, None, None, None], images.flip(-1), images)
        left, right = upright[:, 0, :, 0].mean(1), upright[:, 0, :, -1].mean(1)
        top, bottom = upright[:, 1, 0].mean(1), upright[:, 1, -1].mean(1)
        assert_close(torch.stack([left, top, right, bottom], 1), boxes, atol=0.03, rtol=0)
    unmirrored = torch.where(
        batch.augmented_flipped[:, None, None, None],
        batch.augmented_view.flip(-1),
        batch.augmented_view,
    )
    assert_close(unmirrored, batch.images, atol=1e-5, rtol=0)


def test_a_training_begins_with_the_loaded_encoder_as_its_teacher():
    first, second = only().build(), tiny_vilseg_config(cluster=None, grouping="pixels").build()
    second.load_state_dict(first.state_dict(), strict=False)
    with torch.no_grad():
        second.vision.head.weight.normal_()
    second.on_train_start()
    assert_close(second.vision.teacher.state_dict(), first.image.state_dict(), atol=0, rtol=0)
    assert_close(
        second.vision.teacher_head.state_dict(), second.vision.head.state_dict(), atol=0, rtol=0
    )


def test_settings_that_cannot_work_are_refused(tiny_tokenizer):
    config = tiny_vilseg_config()
    with pytest.raises(ValueError, match="view of 40 px"):
        replace(config, vision=VisionConfig(local_side_px=40)).build()
    narrow = replace(config.text, architecture=config.text.architecture | {"vocab_size": 20})
    with pytest.raises(ValueError, match="the text encoder 20"):
        replace(config, text=narrow).build_transform(tiny_tokenizer)
    short = replace(
        config.text, architecture=config.text.architecture | {"max_position_embeddings": 16}
    )
    with pytest.raises(ValueError, match="encoder takes 16"):
        replace(config, text=short).build_transform(tiny_tokenizer)


def test_tokenizer_comes_from_its_own_field_or_the_text_weights():
    config = tiny_vilseg_config()
    with pytest.raises(ValueError, match="no tokenizer"):
        config.tokenizer_source()
    assert (
        replace(config, text=replace(config.text, weights="folder")).tokenizer_source() == "folder"
    )
    assert replace(config, tokenizer="other").tokenizer_source() == "other"
    assert ViLSegConfig().tokenizer_source() == "openai/clip-vit-base-patch16"


def test_learns_which_caption_names_which_color(tiny_tokenizer):
    """Images of one color with captions; then each half of a two-color image gets its own word."""
    colors = {
        "dog": (1.0, 0.0, 0.0),
        "grass": (0.0, 1.0, 0.0),
        "sea": (0.0, 0.0, 1.0),
        "sky": (1.0, 1.0, 0.0),
    }
    words, values = list(colors), torch.tensor(list(colors.values()))
    config = only(
        cluster=ClusterConfig(num_clusters=6),
        grouping="clusters",
        cross=ContrastiveConfig(symmetric=True),
    )
    method = color_method(config)
    optimizer = torch.optim.Adam(method.parameters(), lr=3e-3)
    captions = tiny_tokenizer([f"a photo of a {word}" for word in words])
    for _ in range(150):
        images = (values[:, :, None, None] + 0.1 * torch.randn(4, 3, *SIDES)).clamp(0, 1)
        images[:, :, :, :16] = values[torch.randperm(4)][
            :, :, None, None
        ]  # some of another color, without a word
        batch = ViLSegBatch(
            images=images,
            captions=captions,
            augmented_view=images * 0.9,
            augmented_flipped=torch.zeros(4, dtype=torch.bool),
        )
        optimizer.zero_grad()
        method(batch).total.backward()
        optimizer.step()
    method.eval()
    with torch.no_grad():
        photo = values[0][None, :, None, None].repeat(1, 1, 48, 80)
        photo[..., 48:] = values[2][:, None, None]
        labels = method.segment(photo, method.encode_text(captions)).argmax(1)[0]
    assert (labels[:, :3] == 0).all() and (labels[:, 3:] == 2).all()


def test_photos_without_text_teach_by_vision_and_clusters_only(tiny_tokenizer, photo):
    transform = tiny_vilseg_config().build_transform(tiny_tokenizer)
    assert transform.learns_without_captions
    texts = ["a dog", "", "a cat", ""]
    samples = [transform.sample(Source(str(n), photo(), [text]), n) for n, text in enumerate(texts)]
    batch = transform.collate(samples).to(torch.device("cpu"))
    assert batch.described.tolist() == [True, False, True, False]

    method = tiny_vilseg_config().build().eval()
    losses = method(batch)
    pixels = method.image(batch.images).mean((2, 3))
    image = F.normalize(pixels, dim=-1)[[0, 2]]
    text = method.encode_text(tiny_tokenizer(["a dog", "a cat"]))
    wanted = info_nce(image, text, method.cross.factor)
    assert_close(losses.terms["cross"], wanted, rtol=1e-4, atol=1e-5)
    assert {"vision", "cluster"} <= set(losses.terms)

    # Without any text the term is zero, and still reaches every weight of the text side.
    silent = method(replace(batch, described=torch.zeros(4, dtype=torch.bool)))
    assert silent.terms["cross"].item() == 0
    silent.total.backward()
    trained = [weight for weight in method.text.parameters() if weight.requires_grad]
    assert trained and all(weight.grad is not None for weight in trained)
    assert not only().build_transform(tiny_tokenizer).learns_without_captions
