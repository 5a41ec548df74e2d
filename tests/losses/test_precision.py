import torch
from torch.nn import functional as F

from maskfree.losses.contrastive import image_to_text, info_nce
from maskfree.losses.distillation import global_to_local, self_distillation
from maskfree.losses.mutual_information import co_occurrence, negative_mutual_information


def test_autocast_changes_no_loss():
    image, text = F.normalize(torch.randn(2, 7, 16), dim=2)
    overall, local = torch.randn(7, 11), torch.randn(7, 3, 11)
    first, second = torch.randn(2, 2, 5, 6, 7).softmax(2)
    losses = [
        lambda: info_nce(image, text, torch.tensor(90.0)),
        lambda: image_to_text(image, text, scale=torch.tensor(90.0)),
        lambda: global_to_local(overall, local),
        lambda: self_distillation(overall[:, None], local, center=overall.mean(0)),
        lambda: negative_mutual_information(co_occurrence(first, second, displacement=1)),
    ]
    exact = [loss() for loss in losses]
    with torch.autocast("cpu", torch.bfloat16):
        assert [loss() for loss in losses] == exact


def test_half_precision_inputs_are_widened():
    image, text = F.normalize(torch.randn(2, 7, 16), dim=2).bfloat16()
    loss = info_nce(image, text, torch.tensor(90.0))
    assert loss.dtype == torch.float32
    assert loss == info_nce(image.float(), text.float(), torch.tensor(90.0))
