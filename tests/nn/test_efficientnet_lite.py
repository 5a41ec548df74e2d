"""EfficientNet-Lite against logits of the PyPI package efficientnet-lite-pytorch (0.1.0, padding
made SAME).
"""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.nn.convolutions import fold_batch_norms
from maskfree.nn.efficientnet_lite import (
    EfficientNetLite,
    EfficientNetLiteConfig,
    is_efficientnet_lite,
)
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.nn.pretrained import read_classifier
from shared_folder import SHARED

WEIGHTS = SHARED / "weights" / "efficientnet_lite2_imagenet"
EVERY_25TH = load_file(Path(__file__).with_name("efficientnet_lite2_logits.safetensors"))["logits"]
SMALL = {"width": 0.2, "depth": 0.3}


def pattern() -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(96.0), torch.arange(160.0), indexing="ij")
    return torch.stack(
        [0.5 + 0.5 * torch.sin(x / 9), 0.5 + 0.5 * torch.cos(y / 7), ((x + 2 * y) % 64) / 64]
    )[None]


@pytest.mark.real
@pytest.mark.skipif(not WEIGHTS.is_dir(), reason=f"{WEIGHTS} is not here")
@torch.no_grad()
def test_logits_are_those_of_the_published_package():
    encoder = ImageEncoderConfig("efficientnet_lite", weights=str(WEIGHTS)).build().eval()
    classifier = read_classifier(str(WEIGHTS), 1000)
    features = encoder(pattern())
    logits = F.conv2d(features, classifier.weight[:, :, None, None], classifier.bias)
    assert_close(logits[0, ::25], EVERY_25TH, atol=2e-3, rtol=1e-3)
    fold_batch_norms(encoder)
    assert_close(encoder(pattern()), features, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("patch_size", [8, 16, 32])
def test_strides_become_dilation(patch_size):
    encoder = ImageEncoderConfig("efficientnet_lite", SMALL, output_stride=patch_size).build()
    assert encoder.patch_size == patch_size
    assert encoder(torch.rand(1, 3, 64, 96)).shape == (1, 1280, 64 // patch_size, 96 // patch_size)


def test_padding_is_tensorflows_same():
    """An even side is padded by one pixel less before than after, so that the last pixel is seen by
    the last output.
    """
    tower = EfficientNetLite(EfficientNetLiteConfig(**SMALL)).eval()
    images = torch.zeros(1, 3, 32, 32)
    changed = images.clone()
    changed[..., 0, 0] = 1
    with torch.no_grad():
        difference = (tower.stem(changed) - tower.stem(images)).abs().sum(1)[0]
    assert difference[0, 0] > 0
    assert not difference[1:].any() and not difference[:, 1:].any()


def test_other_weights_are_refused(tmp_path):
    save_file({"weight": torch.zeros(2)}, tmp_path / "model.safetensors")
    assert not is_efficientnet_lite(str(tmp_path))
    with pytest.raises(ValueError, match="no EfficientNet-Lite's"):
        ImageEncoderConfig("efficientnet_lite", weights=str(tmp_path)).build()
    with pytest.raises(ValueError, match="no field kernel"):
        ImageEncoderConfig("efficientnet_lite", {"kernel": 3}).build()
    with pytest.raises(FileNotFoundError, match=r"no model\.safetensors"):
        ImageEncoderConfig("efficientnet_lite", weights=str(tmp_path / "nowhere")).build()
