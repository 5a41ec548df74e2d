import math

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.losses.contrastive import image_to_text, info_nce, retrieval_accuracy

SCALE = torch.tensor(7.0)


def unit(number: int, dim: int) -> torch.Tensor:
    return F.normalize(torch.randn(number, dim), dim=1)


@pytest.mark.parametrize("loss", [info_nce, image_to_text])
def test_uninformative_embeddings_cost_log_b(loss):
    same = unit(1, 16).expand(9, 16)
    assert_close(loss(same, unit(9, 16)[:1].expand(9, 16), SCALE), torch.tensor(math.log(9)))


@pytest.mark.parametrize("loss", [info_nce, image_to_text])
def test_orthogonal_pairs_have_a_closed_form(loss):
    pairs = torch.eye(6)
    assert_close(loss(pairs, pairs, SCALE), torch.tensor(math.log(1 + 5 * math.exp(-7))))


def test_symmetric_loss_is_the_mean_of_both_directions():
    image, text = unit(8, 16), unit(8, 16)
    both = (image_to_text(image, text, SCALE) + image_to_text(text, image, SCALE)) / 2
    assert_close(info_nce(image, text, SCALE), both)
    assert not torch.isclose(info_nce(image, text, SCALE), image_to_text(image, text, SCALE))


@pytest.mark.parametrize("loss", [info_nce, image_to_text])
def test_order_of_pairs_does_not_matter(loss):
    image, text, order = unit(8, 16), unit(8, 16), torch.randperm(8)
    assert_close(loss(image[order], text[order], SCALE), loss(image, text, SCALE))


def test_image_to_text_has_only_captions_as_negatives():
    """Moving two images together does not change what either costs."""
    image, text = unit(5, 16), unit(5, 16)
    closer = image.clone()
    closer[3] = image[4]
    first = [
        image_to_text(image, text, SCALE),
        F.cross_entropy(SCALE * image[3:4] @ text.T, torch.tensor([3])),
    ]
    second = [
        image_to_text(closer, text, SCALE),
        F.cross_entropy(SCALE * closer[3:4] @ text.T, torch.tensor([3])),
    ]
    assert_close((second[0] - first[0]) * 5, second[1] - first[1])


def test_retrieval_accuracy_counts_own_captions():
    text = torch.eye(4)
    assert retrieval_accuracy(text[[0, 1, 3, 2]], text) == 0.5
