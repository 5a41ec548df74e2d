"""Linear layers by oneDNN against torch's own, and where they are left alone."""

import copy

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from maskfree.nn.linear import OneDnnLinear, OneDnnPointwise, use_onednn
from maskfree.ops import onednn

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)
# Sums of at most 96 products: a few times what float32 rounds off.
VIEWS = ("ViewBackward0", "PermuteBackward0", "TransposeBackward0")
ROUNDING = {"atol": 2e-5, "rtol": 1e-5}


@pytest.fixture
def faster(monkeypatch):
    """On a processor where oneDNN is faster."""
    monkeypatch.setattr(onednn, "is_faster", lambda: True)


def both(layer):
    """The layer as it is, and a copy by oneDNN."""
    quick = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
    quick.load_state_dict(layer.state_dict())
    use_onednn(quick)
    return layer, quick


def is_of_onednn(output):
    """Whether an output, or what it is a view of, is of oneDNN."""
    step = output.grad_fn
    while step is not None and step.name() in VIEWS:
        step = step.next_functions[0][0]
    return step is not None and step.name() == "_LinearBackward"


def of_shape(kind):
    """Features with 7 channels."""
    return {
        "rows": torch.randn(5, 7),
        "batches": torch.randn(2, 3, 5, 7),
        "one row": torch.randn(1, 7),
        "transposed": torch.randn(2, 7, 5).mT,
        "repeated": torch.randn(1, 7).expand(5, 7),
        "parts": torch.randn(4, 9, 14)[:, 1:6, ::2],
    }[kind]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("kind", ["rows", "batches", "one row", "transposed", "repeated", "parts"])
def test_outputs_and_gradients_are_those_of_torch(faster, kind, bias):
    features = of_shape(kind)
    found = []
    for layer in both(nn.Linear(7, 11, bias)):
        leaf = features.clone().requires_grad_()
        output = layer(leaf.expand_as(features))
        # Weighted, so that every entry has its own gradient.
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        found.append([output, leaf.grad, *(weight.grad for weight in layer.parameters())])
    assert [is_of_onednn(each[0]) for each in found] == [False, True]
    for ours, expected in zip(found[1], found[0], strict=True):
        assert ours.shape == expected.shape
        assert_close(ours, expected, **ROUNDING)


def test_a_gradient_that_is_repeated_without_a_copy(faster):
    features = torch.randn(4, 96)
    plain, quick = both(nn.Linear(96, 5))
    for layer in (plain, quick):
        layer(features).sum().backward()
    assert_close(quick.weight.grad, plain.weight.grad, **ROUNDING)
    assert_close(quick.bias.grad, plain.bias.grad, **ROUNDING)


def test_frozen_weights_and_inputs_get_no_gradient(faster):
    plain, quick = both(nn.Linear(7, 11))
    features = [torch.randn(5, 7).requires_grad_() for _ in range(2)]
    for layer, given in zip((plain, quick), features, strict=True):
        layer.weight.requires_grad_(False)
        given.data.copy_(features[0])
        layer(given).square().sum().backward()
    assert quick.weight.grad is None
    assert_close(features[1].grad, features[0].grad, **ROUNDING)
    assert_close(quick.bias.grad, plain.bias.grad, **ROUNDING)

    quick.requires_grad_(False)
    assert not quick(torch.randn(5, 7)).requires_grad


def test_the_output_may_be_changed_in_place(faster):
    plain, quick = both(nn.Linear(7, 11))
    features, added = torch.randn(2, 5, 7), torch.randn(2, 5, 11)
    for layer in (plain, quick):
        output = layer(features)
        output += added
        output.square().sum().backward()
    assert_close(quick.weight.grad, plain.weight.grad, **ROUNDING)


@pytest.mark.parametrize(
    ("features", "dtype"),
    [
        (torch.randn(7), torch.float32),
        (torch.randn(0, 7), torch.float32),
        (torch.randn(5, 7).double(), torch.float64),
        (torch.randn(5, 7).bfloat16(), torch.bfloat16),
    ],
)
def test_other_work_is_left_to_torch(faster, features, dtype):
    plain, quick = both(nn.Linear(7, 11))
    plain.to(dtype), quick.to(dtype)
    assert not is_of_onednn(quick(features))
    assert_close(quick(features), plain(features), atol=0, rtol=0)


def test_autocast_is_left_to_torch(faster):
    plain, quick = both(nn.Linear(7, 11))
    features = torch.randn(5, 7)
    with torch.autocast("cpu", torch.bfloat16):
        assert quick(features).dtype == torch.bfloat16
        assert_close(quick(features), plain(features), atol=0, rtol=0)


@pytest.mark.parametrize("is_faster", [True, False])
def test_layers_are_replaced_where_that_is_faster(monkeypatch, is_faster):
    monkeypatch.setattr(onednn, "is_faster", lambda: is_faster)
    attention = nn.MultiheadAttention(4, 2)  # its output map is of a kind of its own
    model = nn.Sequential(nn.Linear(4, 4), nn.GELU(), attention)
    names, own = list(model.state_dict()), type(attention.out_proj)
    use_onednn(model)
    assert type(model[0]) is (OneDnnLinear if is_faster else nn.Linear)
    assert type(attention.out_proj) is own
    assert list(model.state_dict()) == names


def maps(kind):
    """Maps with 7 channels."""
    rows = torch.randn(2, 7, 5, 3)
    return {
        "channels last": rows.contiguous(memory_format=torch.channels_last),
        "channels first": rows,
        "one pixel": torch.randn(1, 7, 1, 1),
        "one photo": torch.randn(7, 5, 3),
        "none": rows[:0],
        "part": torch.randn(2, 7, 9, 6).contiguous(memory_format=torch.channels_last)[..., 1:4],
    }[kind]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    "kind", ["channels last", "channels first", "one pixel", "one photo", "none", "part"]
)
def test_pointwise_convolutions_are_those_of_torch(faster, kind, bias):
    plain = nn.Conv2d(7, 11, 1, bias=bias)
    quick = copy.deepcopy(plain)
    use_onednn(nn.Sequential(quick))
    assert type(quick) is OneDnnPointwise
    features = maps(kind).requires_grad_()
    outputs, gradients = [], []
    for layer in (plain, quick):
        features.grad = None
        output = layer(features)
        # Weighted, so that every entry has its own gradient.
        (output * torch.linspace(-1, 1, output.numel()).view_as(output)).sum().backward()
        outputs.append(output)
        gradients.append((features.grad, *(each.grad for each in layer.parameters())))
    assert_close(outputs[1], outputs[0], **ROUNDING)
    for ours, theirs in zip(gradients[1], gradients[0], strict=True):
        assert_close(ours, theirs, **ROUNDING)


def test_only_products_in_place_take_pixels(faster):
    """A channels-last map is not copied; the result may be changed in place."""
    layer = nn.Conv2d(7, 11, 1)
    use_onednn(nn.Sequential(layer))
    output = layer(maps("channels last"))
    assert is_of_onednn(output)
    assert output.is_contiguous(memory_format=torch.channels_last)
    assert not is_of_onednn(layer(maps("channels first")))
    expected = output.detach().clamp(0, 6)
    assert_close(nn.ReLU6(inplace=True)(output), expected)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 6, 3),
        nn.Conv2d(6, 6, 1, stride=2),
        nn.Conv2d(6, 6, 1, padding=1),
        nn.Conv2d(6, 6, 1, groups=2),
        nn.Conv1d(6, 6, 1),
    ],
)
def test_other_convolutions_are_left_to_torch(faster, layer):
    kind = type(layer)
    use_onednn(nn.Sequential(layer))
    assert type(layer) is kind
