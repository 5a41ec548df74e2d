"""Every number, name and choice in a settings dataclass is checked, from Python and from the
command line alike.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, get_args, get_origin

import pytest

from maskfree.cli import main
from maskfree.config import rules
from maskfree.data.config import DataConfig
from maskfree.distillation.clips4_config import DistillConfig
from maskfree.distillation.prototype_config import PrototypeConfig
from maskfree.distillation.self_training_config import SelfTrainConfig
from maskfree.engine.config import TrainConfig
from maskfree.evaluation.probes.config import KnnConfig, LinearConfig
from maskfree.evaluation.protocol import Protocol
from maskfree.inference.config import Inference
from maskfree.inference.search_config import RetrievalConfig
from maskfree.inference.tracking_config import TrackConfig
from maskfree.methods.clips4.config import CLIPS4Config
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.student.config import StudentConfig
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.words_config import WordsConfig
from maskfree.nn.deeplab_config import CorrectionConfig
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.ops.propagation_config import PropagationConfig
from maskfree.recipes import RECIPES
from maskfree.regions.region_maps import SegmentConfig

ROOTS = (
    ViLSegConfig(words=WordsConfig()),
    OVSegmentorConfig(),
    OVSegmentorConfig(image=replace(OVSegmentorConfig().image, stem=ImageEncoderConfig())),
    CLIPS4Config(correction=CorrectionConfig(), pseudo_label_weight=1.0),
    MaskCLIPConfig(),
    GroupViTConfig(),
    StudentConfig(),
    Inference(),
    TrainConfig(),
    DataConfig(),
    DistillConfig(),
    SelfTrainConfig(),
    TrackConfig(),
    PropagationConfig(),
    RetrievalConfig(),
    SegmentConfig(),
    KnnConfig(),
    LinearConfig(),
    PrototypeConfig(),
    Protocol(),
)
UNBOUNDED = {"seed"}  # any whole number


def leaves(config: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All fields with their kinds, of parts too."""
    for field, kind in rules._kinds(type(config)):
        value, path = getattr(config, field), f"{name}.{field}" if name else field
        if is_dataclass(value):
            yield from leaves(value, path)
        else:
            yield path, kind


def broken(config: Any, path: str, value: Any) -> Any:
    """CONFIG with another value at a dotted PATH, made without asking the classes."""
    copy = object.__new__(type(config))
    for field in fields(config):
        object.__setattr__(copy, field.name, getattr(config, field.name))
    name, _, rest = path.partition(".")
    object.__setattr__(copy, name, broken(getattr(config, name), rest, value) if rest else value)
    return copy


def remade(config: Any, path: str, value: Any) -> None:
    """Make CONFIG with another value.

    Around the constructor, whose types the tests, unlike users, have checked.
    """
    broken(config, path, value).__post_init__()


def plain_kinds(kind: Any) -> set[Any]:
    """The plain types that KIND is made of."""
    if get_origin(kind) is Literal:
        return {Literal}
    inner = [choice for choice in get_args(kind) if isinstance(choice, type) or get_args(choice)]
    return set().union(*map(plain_kinds, inner)) if inner else {kind}


@pytest.mark.parametrize("config", ROOTS, ids=lambda config: type(config).__name__)
def test_every_number_has_a_range_and_every_choice_is_checked(config: Any):
    rules.check(config)
    for path, kind in leaves(config):
        plain = plain_kinds(kind)
        refused: list[Any] = []
        if Literal in plain:
            refused += ["nonsense", 7, True]
        if (
            plain & {int, float}
            and not rules._is_mapping(kind)
            and path.rpartition(".")[2] not in UNBOUNDED
        ):
            refused += [-1, float("nan"), float("inf"), float("-inf"), True, "1", [object()]]
        if bool in plain and Literal not in plain and len(plain) == 1:
            refused += ["yes", 1]
        if str in plain and len(plain) == 1 and get_origin(kind) is not tuple:
            refused += [3, ["a"]]
        for value in refused:
            with pytest.raises(ValueError, match=rf"^{path}\b.* is .*, must be ") as caught:
                rules.check(broken(config, path, value))
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_keep_the_ranges(name: str):
    rules.check(RECIPES[name]())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: remade(Inference(), "score", "nonsense"),
            "score is 'nonsense', must be one of cosine, softmax, product",
        ),
        (
            lambda: remade(Inference(), "precision", "float16"),
            "precision is 'float16', must be one of float32, bfloat16",
        ),
        (
            lambda: remade(Inference(), "class_prior", float("nan")),
            "class_prior is nan, must be a finite number",
        ),
        (lambda: remade(Inference(), "side_px", True), "side_px is True, must be a whole number"),
        (
            lambda: remade(Inference(), "batch_size", 10**12),
            r"batch_size is 1000000000000, must be in \[1, 16384\]",
        ),
        (lambda: ViLSegConfig(embed_dim=0).build(), r"embed_dim is 0, must be in \[1, 65536\]"),
        (lambda: ViLSegConfig(embed_dim=10**12).build(), "embed_dim is 1000000000000, must be"),
        (
            lambda: ViLSegConfig(image=ImageEncoderConfig(output_stride=0)).build(),
            "image.output_stride is 0, must be",
        ),
        (
            lambda: ViLSegConfig(
                image=ImageEncoderConfig(architecture={"hidden_dropout_prob": float("nan")})
            ).build(),
            "image.architecture.hidden_dropout_prob is nan, must be",
        ),
        (
            lambda: remade(PropagationConfig(), "temperature", float("inf")),
            "temperature is inf, must be a finite number",
        ),
    ],
)
def test_from_python(make: Any, message: str):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("option", "value", "field"),
    [
        ("train.weight-decay", "nan", "train.weight_decay is nan"),
        ("train.clip-norm", "-1", "train.clip_norm is -1.0"),
        ("train.learning-rate", "inf", "train.learning_rate is inf"),
        ("train.lr_multipliers", "image nan", "train.lr_multipliers is"),
        ("train.average-decay", "1", "train.average_decay is 1"),
        ("train.warm-up-steps", "-5", "train.warm_up_steps is -5"),
        ("train.frozen-steps", "-1", "train.frozen_steps is -1"),
        ("data.shuffle-buffer", "0", "data.shuffle_buffer is 0"),
        ("method.embed-dim", "0", "method.embed_dim is 0"),
        ("method.views.side-px", "0", "method.views.side_px is 0"),
        ("method.views.mirror", "1.5", "method.views.mirror is 1.5"),
        ("method.views.scale", "nan 1", "method.views.scale is"),
        ("method.views.scale", "0.9 0.4", "method.views.scale is (0.9, 0.4), must be ascending"),
        ("method.vision.teacher-momentum", "2", "method.vision.teacher_momentum is 2"),
        ("method.cross.weight", "nan", "method.cross.weight is nan"),
        ("method.cluster.num-clusters", "0", "method.cluster.num_clusters is 0"),
        ("method.image.output-stride", "0", "method.image.output_stride is 0"),
    ],
)
def test_refused_before_the_first_step(
    tmp_path, capsys: pytest.CaptureFixture[str], option: str, value: str, field: str
):
    arguments = [
        "train",
        "vilseg_debug",
        "--out",
        str(tmp_path / "run"),
        f"--{option}",
        *value.split(),
    ]
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    error = capsys.readouterr().err
    assert (caught.value.code, error.count("\n")) == (2, 1), error
    assert error.startswith(f"maskfree: error: {field}"), error
    assert not list(tmp_path.iterdir())
