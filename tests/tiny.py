"""The smallest networks and captions that the tests use."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from maskfree.data.cache.teacher_maps import TeacherMaps
from maskfree.data.config import ViewConfig
from maskfree.methods.clips4.config import CLIPS4Config, PairConfig
from maskfree.methods.clips4.objectives_config import SemanticConsistencyConfig
from maskfree.methods.groupvit.config import GroupViTConfig
from maskfree.methods.maskclip.config import MaskCLIPConfig
from maskfree.methods.ovsegmentor.config import OVSegmentorConfig
from maskfree.methods.ovsegmentor.objectives_config import EntityConfig, MaskConfig
from maskfree.methods.student.config import StudentConfig, StudentViews
from maskfree.methods.vilseg.config import ClusterConfig, ViLSegConfig, VisionConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.methods.vilseg.tag_scores_config import TagScoresConfig
from maskfree.nn.dense_clip_config import TRAINED, DenseClipConfig
from maskfree.nn.encoder_config import ImageEncoderConfig, TextEncoderConfig
from maskfree.nn.grouping_config import GroupingEncoderConfig
from maskfree.nn.projection_config import ProjectionConfig

TINY_IMAGE = ImageEncoderConfig(
    family="mobilenet_v2",
    architecture={
        "depth_multiplier": 0.1,
        "finegrained_output": False,
        "min_depth": 4,
        "depth_divisible_by": 4,
    },
    output_stride=16,
)
TINY_TAG_SCORES = TagScoresConfig(
    image=ImageEncoderConfig("efficientnet_lite", {"width": 0.1, "depth": 0.1}),
    num_tags=7,
    num_tag_names=11,
    num_tag_kinds=5,
    num_concepts=6,
    num_concept_names=9,
)
TINY_TEXT = TextEncoderConfig(
    family="bert",
    architecture={
        "vocab_size": 400,
        "hidden_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 40,
        "max_position_embeddings": 32,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    },
)
TINY_GROUPING = GroupingEncoderConfig(
    side_px=64, dim=21, num_heads=3, depths=(1, 1), num_groups=4, num_tokens=4, drop_path=0.0
)
CAPTIONS = (
    "a dog runs on the green grass",
    "a man and a woman sit on a red sofa",
    "two children play with a yellow ball near the sea",
    "a black cat sleeps under the table",
    "a photo of a boat and a ship on blue water",
    "there is a television in the picture",
    "someone next to a motorcycle, a bicycle and a car outdoors",
    "a close view of the sky above the street",
)


def tiny_vilseg_config(**changes: Any) -> ViLSegConfig:
    """A ViL-Seg of a few thousand weights, with 18 dimensions, 5 clusters and patches of 16 px."""
    settings: dict[str, Any] = {
        "image": TINY_IMAGE,
        "text": TINY_TEXT,
        "tokenizer": None,
        "embed_dim": 18,
        "vision": VisionConfig(out_dim=14, num_local_views=3, local_side_px=32),
        "cluster": ClusterConfig(num_clusters=5),
        "views": ViewConfig(side_px=64),
    }
    return ViLSegConfig(**(settings | changes))


def tiny_groupvit_config(**changes: Any) -> GroupViTConfig:
    """A GroupViT of a few thousand weights, with 18 dimensions, 9 and 4 groups and patches of 16
    px.
    """
    settings: dict[str, Any] = {
        "weights": None,
        "vision": {
            "hidden_size": 24,
            "intermediate_size": 40,
            "num_hidden_layers": 4,
            "depths": [2, 1, 1],
            "num_group_tokens": [9, 5, 0],
            "num_output_groups": [9, 4, 0],
            "num_attention_heads": 3,
            "image_size": 64,
        },
        "text": {
            "vocab_size": 400,
            "hidden_size": 20,
            "intermediate_size": 30,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "max_position_embeddings": 32,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
        "projections": {"projection_dim": 18, "projection_intermediate_dim": 50},
        "views": ViewConfig(side_px=64),
    }
    return GroupViTConfig(**(settings | changes))


def tiny_ovsegmentor_config(**changes: Any) -> OVSegmentorConfig:
    """An OVSegmentor of a few thousand weights, all terms on, with 18 dimensions, 4 groups and
    patches of 16 px.
    """
    settings: dict[str, Any] = {
        "image": TINY_GROUPING,
        "text": TINY_TEXT,
        "tokenizer": None,
        "embed_dim": 18,
        "entity": EntityConfig(num_heads=3),
        "masks": MaskConfig(start=0.0),
        "views": ViewConfig(side_px=64),
    }
    return OVSegmentorConfig(**(settings | changes))


def tiny_student_config(**changes: Any) -> StudentConfig:
    """A student of a few thousand weights, with three classes of four phrases and
    patches of 16 px.
    """
    settings: dict[str, Any] = {
        "image": TINY_IMAGE,
        "width": 12,
        "text": replace(TINY_TEXT, frozen=True),
        "embed_dim": 18,
        "synonyms": (1, 2, 1),
        "thresholds": (0, 0, 0),
        "views": StudentViews(crop_px=64, side_px=64),
    }
    return StudentConfig(**(settings | changes))


def tiny_clips4_config(**changes: Any) -> CLIPS4Config:
    """A CLIP-S4 of a few thousand weights, all terms on, with 18 dimensions, 4 segments and patches
    of 16 px.
    """
    settings: dict[str, Any] = {
        "image": TINY_IMAGE,
        "image_projection": ProjectionConfig("pyramid", hidden=12),
        "text": replace(TINY_TEXT, frozen=True),
        "embed_dim": 18,
        "known": ("a", "b", "c"),
        "semantic": SemanticConsistencyConfig(num_unknown=5),
        "num_segments": 4,
        "grid": 8,
        "views": PairConfig(side_px=64),
    }
    return CLIPS4Config(**(settings | changes))


def tiny_teacher_maps(keys: Iterable[str], dim: int = 18) -> Path:
    """A folder of what a teacher may see, noise, one map for each of KEYS.

    It goes when Python ends.
    """
    folder = tempfile.TemporaryDirectory(prefix="maskfree-teacher-")
    atexit.register(folder.cleanup)
    numbers = torch.Generator().manual_seed(0)
    for key in keys:
        seen = torch.randn(dim, 2, 3, generator=numbers)
        TeacherMaps(Path(folder.name)).write(key, F.normalize(seen, dim=0))
    return Path(folder.name)


TINY_CLIP_VISION = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "image_size": 32,
    "patch_size": 8,
}
TINY_DINO = ImageEncoderConfig(
    "dino",
    {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 20,
        "patch_size": 5,
    },
)
TINY_CLIP_TEXT = {
    "hidden_size": 20,
    "intermediate_size": 30,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "vocab_size": 400,
    "bos_token_id": 2,
    "eos_token_id": 3,
}


def tiny_maskclip_config(**changes: Any) -> MaskCLIPConfig:
    """A CLIP of a few thousand weights, with 18 dimensions and patches of 8 px."""
    settings: dict[str, Any] = {
        "image": DenseClipConfig(architecture=TINY_CLIP_VISION | {"projection_dim": 18}),
        "text": TextEncoderConfig("clip", TINY_CLIP_TEXT, frozen=True),
        "embed_dim": 18,
    }
    return MaskCLIPConfig(**(settings | changes))


def tiny_siglip_config(**changes: Any) -> MaskCLIPConfig:
    """The same of SigLIP's kind, with 24 dimensions."""
    settings: dict[str, Any] = {
        "image": DenseClipConfig("siglip", TINY_CLIP_VISION, last_block=TRAINED),
        "text": TextEncoderConfig("siglip", TINY_CLIP_TEXT | {"pad_token_id": 0}, frozen=True),
        "text_projection": ProjectionConfig(),
        "embed_dim": 24,
    }
    return MaskCLIPConfig(**(settings | changes))


def tiny_label_maps(keys: Iterable[str]) -> Path:
    """A folder of label maps of three classes in stripes, one for each of KEYS.

    It goes when Python ends.
    """
    folder = tempfile.TemporaryDirectory(prefix="maskfree-labels-")
    atexit.register(folder.cleanup)
    pairs = np.full((4, 9, 2), 255, np.uint8)
    pairs[..., 0] = np.arange(9) % 3
    for key in keys:
        Image.fromarray(pairs, "LA").save(Path(folder.name) / f"{key}.png")
    return Path(folder.name)


@torch.no_grad()
def spread_out(method: ViLSeg) -> ViLSeg:
    """Center and stretch random weights, so that patches of a photo differ and fall into different
    clusters.
    """
    images = torch.rand(4, 3, 4, 6).repeat_interleave(16, 2).repeat_interleave(16, 3)
    projection, convolution = method.image.projection, method.cluster.head.convolution
    features = method.image.encoder(images)
    projection.weight /= features.std()
    projection.bias.copy_(-projection.weight[..., 0, 0] @ features.mean((0, 2, 3)))
    convolution.weight.normal_()
    convolution.bias.zero_()
    return method
