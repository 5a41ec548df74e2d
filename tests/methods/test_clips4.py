"""CLIP-S4 as a whole: which terms are on, what learns, and what it asks of its settings
and files.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.data.cache.prototypes import Prototypes
from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.sample import Source
from maskfree.hub import checkpoint
from maskfree.methods.clips4.batch import CLIPS4Batch
from maskfree.methods.clips4.config import CLIPS4Config, PairConfig
from maskfree.methods.clips4.objectives_config import PixelSegmentConfig, SemanticConsistencyConfig
from maskfree.methods.clips4.view_segments import ViewSegments
from maskfree.nn.deeplab_config import CorrectionConfig
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig
from maskfree.recipes import clips4
from tiny import tiny_clips4_config, tiny_maskclip_config

DIM, GRID, NAMES = 18, 8, ("dog", "sofa/couch", "sky")


def unit(*shape: int, dim: int = 1) -> torch.Tensor:
    return F.normalize(torch.randn(*shape), dim=dim)


def random_batch(number: int = 3) -> CLIPS4Batch:
    return CLIPS4Batch(
        images=torch.rand(number, 2, 3, 64, 64),
        regions=torch.randint(0, 3, (number, 2, GRID, GRID), dtype=torch.uint8),
        teacher=unit(number, 2, DIM, GRID, GRID, dim=2).half(),
    )


@pytest.fixture
def prototypes(tmp_path) -> str:
    found = Prototypes(NAMES, unit(4, DIM), unit(3, DIM), unit(9, DIM))
    found.write(tmp_path / "prototypes.safetensors")
    return str(tmp_path / "prototypes.safetensors")


def test_the_total_is_equation_5_with_that_of_the_unknown_classes():
    method, batch = tiny_clips4_config().build(), random_batch()
    losses = method(batch)
    assert list(losses.terms) == ["contrast", "embedding", "semantic", "unknown"]
    assert_close(losses.total, sum(losses.terms.values()))
    assert set(losses.metrics) == {"similarity", "same_class", "known_share"}


def test_terms_see_the_enlarged_and_normalized_embeddings_of_both_views():
    method, batch = tiny_clips4_config().build().eval(), random_batch()
    losses = method(batch)
    views = batch.images.flatten(0, 1)
    raw = torch.cat([method.image(view[None]) for view in views])
    pixels = F.normalize(
        F.interpolate(raw, (GRID, GRID), mode="bilinear", align_corners=False), dim=1
    )
    regions, teacher = batch.regions.flatten(0, 1), batch.teacher.flatten(0, 1).float()
    segments = ViewSegments.cut(pixels, regions.long(), teacher, 4)
    assert_close(losses.terms["contrast"], method.contrast(segments).terms["contrast"])
    assert_close(losses.terms["semantic"], method.semantic(segments, teacher).terms["semantic"])


@pytest.mark.parametrize(
    ("changes", "terms"),
    [
        ({"embedding_weight": None, "semantic": None}, {"contrast"}),
        ({"semantic": None}, {"contrast", "embedding"}),
        ({"embedding_weight": None}, {"contrast", "semantic", "unknown"}),
        ({"contrast": None}, {"embedding", "semantic", "unknown"}),
        (
            {"semantic": SemanticConsistencyConfig(num_unknown=0)},
            {"contrast", "embedding", "semantic"},
        ),
        (
            {
                "contrast": None,
                "embedding_weight": None,
                "semantic": None,
                "pseudo_label_weight": 1.0,
            },
            {"labels"},
        ),
    ],
)
def test_terms_can_be_left_out(changes, terms):
    assert set(tiny_clips4_config(**changes).build()(random_batch()).terms) == terms


def test_weights_reach_their_terms():
    batch = random_batch()
    torch.manual_seed(1)
    usual = tiny_clips4_config().build()(batch).terms
    torch.manual_seed(1)
    weights = {
        "contrast": PixelSegmentConfig(weight=0.5),
        "embedding_weight": 3.0,
        "semantic": SemanticConsistencyConfig(weight=0.25, num_unknown=5),
    }
    other = tiny_clips4_config(**weights).build()(batch).terms
    factors = {"contrast": 0.5, "embedding": 3.0, "semantic": 0.25, "unknown": 1.0}
    assert_close(other, {name: factors[name] * value for name, value in usual.items()})


def test_the_order_of_photos_does_not_matter():
    method, batch, order = tiny_clips4_config().build(), random_batch(), torch.tensor([2, 0, 1])
    reordered = CLIPS4Batch(batch.images[order], batch.regions[order], batch.teacher[order])
    first = method.eval()(batch).terms  # outside training nothing is remembered
    assert_close(method(reordered).terms, first)


def test_only_the_image_side_and_the_unknown_classes_learn():
    method = tiny_clips4_config().build()
    learning = {name for name, weight in method.named_parameters() if weight.requires_grad}
    assert {name.split(".")[0] for name in learning} == {"image", "semantic"}
    assert {name for name in learning if name.startswith("semantic")} == {
        "semantic.classes.unknown"
    }
    method(random_batch()).total.backward()
    assert method.semantic.classes.unknown.grad.any()


def test_prototypes_come_from_their_file(prototypes):
    config = tiny_clips4_config(
        prototypes=prototypes, known=(), semantic=SemanticConsistencyConfig(num_unknown=6, seed=2)
    )
    method = config.build()
    classes = method.semantic.classes
    assert classes.num_known == 3 and classes.unknown.shape == (6, DIM)
    lean = config.for_inference()
    assert (lean.known, lean.prototypes, lean.teacher, lean.semantic) == (NAMES, None, None, None)
    again = config.without_pretrained().build()
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.semantic.classes.known, classes.known)


def test_known_classes_can_be_their_names_with_synonyms(prototypes):
    semantic = SemanticConsistencyConfig(num_unknown=2, known="names")
    classes = tiny_clips4_config(prototypes=prototypes, semantic=semantic).build().semantic.classes
    assert classes.known.shape == (4, DIM) and classes.num_known == 3
    assert classes.cosines(unit(2, DIM, 3, 5)).shape == (2, 5, 3, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"semantic": SemanticConsistencyConfig(num_unknown=10)},
            "10 unknown classes start from as many segments: there are 9",
        ),
        ({"embed_dim": 24}, "has 18 dimensions, embed_dim is 24"),
        ({"num_segments": 0}, "num_segments is 0"),
        ({"contrast": PixelSegmentConfig(memory=-1)}, "memory is -1"),
        ({"contrast": PixelSegmentConfig(memory=1152)}, "memory is 1152"),
        ({"contrast": PixelSegmentConfig(thin=0)}, "thin is 0"),
        ({"prototypes": None, "known": ()}, r"name their file in method\.prototypes"),
    ],
)
def test_settings_that_do_not_fit_are_named(prototypes, changes, message):
    with pytest.raises(ValueError, match=message) as caught:
        tiny_clips4_config(**({"prototypes": prototypes} | changes)).build()
    assert "\n" not in str(caught.value)


def test_a_view_divides_into_patches():
    config = tiny_clips4_config()
    with pytest.raises(ValueError, match="72 px does not divide into patches of 16 px"):
        replace(config, views=replace(config.views, side_px=72)).build()


def test_files_that_are_missing_are_named(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"none\.safetensors is missing: `maskfree prepare prototypes`"
    ):
        tiny_clips4_config(prototypes=str(tmp_path / "none.safetensors")).build()
    with pytest.raises(ValueError, match=r"method\.teacher"):
        tiny_clips4_config().build_transform(None)
    with pytest.raises(ValueError, match="--init"):
        tiny_clips4_config().tokenizer_source()
    tiny_clips4_config(embedding_weight=None, semantic=None).build_transform(
        None
    )  # contrast alone follows nobody


def test_the_papers_settings_are_the_papers():
    config = CLIPS4Config()
    assert (config.num_segments, config.semantic.num_unknown) == (36, 64)
    assert config.contrast.memory == 2
    weights = (config.contrast.weight, config.embedding_weight, config.semantic.weight)
    assert weights == (1.0, 1.0, 1.0) and config.pseudo_label_weight is None
    assert config.semantic.class_prior == 0 and config.semantic.known == "segments"


def test_a_student_of_a_clip_starts_with_its_texts(tmp_path, tiny_tokenizer):
    """The recipe names what is not taken: the image side and the scale.

    Nothing else of the text side stays random.
    """
    theirs = tiny_maskclip_config()
    teacher = theirs.build()
    checkpoint.save(
        tmp_path / "clip", teacher, theirs, tiny_tokenizer, {"name": "clip", "templates": ["{}"]}
    )
    recipe = clips4()
    config = tiny_clips4_config(text=theirs.text, text_projection=recipe.method.text_projection)
    method = config.build()
    fresh = checkpoint.start_from(tmp_path / "clip", method, without=recipe.init_without)
    assert {name.split(".")[0] for name in fresh} == {"image", "contrast", "semantic"}
    tokens = tiny_tokenizer(["a dog", "the sky"])
    assert_close(method.encode_text(tokens), teacher.encode_text(tokens))


def test_photos_of_one_color_and_of_all_sizes_train(tmp_path):
    sizes = [(1, 1), (3, 400), (500, 20), (64, 64), (90, 60)]
    maps = TeacherMaps(tmp_path / "teacher")
    for index, (width, height) in enumerate(sizes):
        maps.write(str(index), unit(DIM, max(1, height // 16), max(1, width // 16), dim=0))
    method = tiny_clips4_config(teacher=str(maps.folder)).build()
    transform = tiny_clips4_config(teacher=str(maps.folder)).build_transform(None)
    photos = [Image.new("RGB", size, (40 * index, 90, 200)) for index, size in enumerate(sizes)]
    batch = transform.collate(
        [transform.sample(Source(str(i), p, []), i) for i, p in enumerate(photos)]
    ).to(torch.device("cpu"))
    losses = method(batch)
    losses.total.backward()
    assert all(value.isfinite() for value in (*losses.terms.values(), *losses.metrics.values()))
    assert all(w.grad.isfinite().all() for w in method.parameters() if w.grad is not None)


def test_a_student_learns_what_its_teacher_sees(tmp_path):
    """Photos of two halves.

    The teacher has a direction for each color. A photo of three stripes is the test.
    """
    colors, meanings = (
        torch.tensor([[0.9, 0.1, 0.1], [0.1, 0.8, 0.2], [0.1, 0.2, 0.9]]),
        torch.eye(DIM)[[3, 7, 11]],
    )
    vit = {
        "hidden_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 48,
    }
    maps, rng = TeacherMaps(tmp_path), np.random.default_rng(0)
    sources = []
    for index in range(24):
        halves = rng.permutation(3)[[0, 0, 1, 1]]
        maps.write(str(index), meanings[halves].T[:, None].expand(-1, 2, -1))
        Image.fromarray(np.array([[0, 0, 1, 1]], np.uint8).repeat(3, 0)).save(
            tmp_path / f"{index}.png"
        )
        pixels = (colors[halves.repeat(10)].expand(30, -1, -1) * 255).byte().numpy()
        sources.append(Source(str(index), Image.fromarray(pixels), []))
    config = tiny_clips4_config(
        image=ImageEncoderConfig("vit", vit | {"image_size": 32, "patch_size": 8}),
        image_projection=ProjectionConfig("linear"),
        contrast=PixelSegmentConfig(weight=0.1),
        semantic=None,
        grid=4,
        views=PairConfig(side_px=32, colors="none"),
        segments=str(tmp_path),
        teacher=str(tmp_path),
    )
    method, transform = config.build(), config.build_transform(None)
    optimizer = torch.optim.AdamW([w for w in method.parameters() if w.requires_grad], lr=3e-3)
    similar = []
    for step in range(40):
        chosen = [transform.sample(sources[(6 * step + i) % 24], 100 * step + i) for i in range(6)]
        optimizer.zero_grad()
        losses = method(transform.collate(chosen).to(torch.device("cpu")))
        losses.total.backward()
        optimizer.step()
        similar.append(losses.metrics["similarity"].item())
    assert np.mean(similar[-5:]) > 0.85 > 0.5 > similar[0]
    stripes = colors[[2, 0, 1]].T[:, None].repeat_interleave(16, 2).expand(-1, 24, -1)
    assert method.eval().segment(stripes[None], meanings)[0, :, 1].argmax(0).tolist() == [
        2,
        2,
        0,
        0,
        1,
        1,
    ]


def test_a_corrected_projection_starts_as_it_is():
    config = tiny_clips4_config(
        image_projection=ProjectionConfig("linear"), correction=CorrectionConfig(12)
    )
    method = config.build().eval()
    images = torch.rand(2, 3, 48, 64)
    features = method.image.encoder(images)
    assert_close(method.image(images), method.image.projection.known(features))
