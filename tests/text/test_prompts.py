import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from maskfree.text.prompts import fill, mean_over_templates
from maskfree.text.templates import TEMPLATES


def test_every_set_of_templates_can_be_filled():
    for templates in TEMPLATES.values():
        texts = fill(templates, ["dog", "tv monitor"])
        assert len(texts) == 2 * len(templates) == len(set(texts))
        assert all("tv monitor" in text for text in texts[len(templates) :])


@pytest.mark.parametrize("templates", [[], ["a photo"], ["{} and {}"]])
def test_wrong_templates_are_refused(templates):
    with pytest.raises(ValueError):
        fill(templates, ["dog"])


def test_class_is_the_direction_of_its_templates_mean():
    embeddings = F.normalize(torch.randn(2 * 3, 5), dim=1)
    expected = F.normalize(torch.stack([embeddings[:3].mean(0), embeddings[3:].mean(0)]), dim=1)
    assert_close(mean_over_templates(embeddings, 3), expected)
