"""BERT without transformers: the same names, features and gradients as theirs."""

from __future__ import annotations

import pytest
import torch
import transformers
from torch.testing import assert_close

from maskfree.nn.activation_checkpointing import checkpoint_activations
from maskfree.nn.bert import Bert
from maskfree.nn.encoder_config import TextEncoderConfig
from tiny import TINY_TEXT

IDS = torch.tensor([[2, 7, 9, 3, 0], [2, 301, 45, 8, 3], [2, 3, 0, 0, 0]])


@pytest.fixture
def pair():
    """Ours and theirs with the same weights."""
    torch.manual_seed(1)
    ours = TINY_TEXT.build().tower
    assert isinstance(ours, Bert)
    theirs = transformers.BertModel(
        transformers.BertConfig(**TINY_TEXT.architecture), add_pooling_layer=False
    )
    missing, unexpected = theirs.load_state_dict(ours.state_dict(), strict=True)
    assert not missing and not unexpected
    return ours, theirs


@pytest.mark.parametrize("masked", [False, True], ids=["no padding", "padding"])
def test_features_are_bit_equal(pair, masked):
    mask = IDS.ne(0).long()
    if not masked:
        mask = torch.ones_like(IDS)
    ours, theirs = (
        network.eval()(input_ids=IDS, attention_mask=mask).last_hidden_state for network in pair
    )
    assert torch.equal(ours, theirs)
    assert torch.equal(pair[0](IDS, None).last_hidden_state, pair[0](IDS).last_hidden_state)
    if masked:
        assert not torch.allclose(ours, pair[0](IDS).last_hidden_state)


def test_gradients_and_order_of_parameters_are_the_same(pair):
    gradients = []
    for network in pair:
        network.train()
        features = network(input_ids=IDS, attention_mask=IDS.ne(0).long()).last_hidden_state
        features.pow(3).sum().backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters()})
    ours, theirs = gradients
    assert list(ours) == list(theirs)
    for name, gradient in ours.items():
        assert_close(gradient, theirs[name], msg=name)


@pytest.mark.parametrize("padding", [0, 3])
def test_a_seed_gives_the_same_weights_as_theirs(padding):
    config = {**TINY_TEXT.architecture, "initializer_range": 0.3, "pad_token_id": padding}
    torch.manual_seed(5)
    ours = TextEncoderConfig("bert", config).build().tower
    torch.manual_seed(5)
    theirs = transformers.BertModel(transformers.BertConfig(**config), add_pooling_layer=False)
    for name, weight in ours.state_dict().items():
        assert torch.equal(weight, theirs.state_dict()[name]), name
    assert not ours.embeddings["word_embeddings"].weight[padding].any()


def test_dropout_acts_in_training_only():
    dropout = {"hidden_dropout_prob": 0.5, "attention_probs_dropout_prob": 0.5}
    tower = TextEncoderConfig("bert", TINY_TEXT.architecture | dropout).build().tower.eval()
    once = tower(IDS).last_hidden_state
    assert torch.equal(tower(IDS).last_hidden_state, once)
    assert not torch.allclose(tower.train()(IDS).last_hidden_state, once)


def test_layers_are_computed_anew_where_asked(pair):
    ours = pair[0].train()
    expected = torch.autograd.grad(ours(IDS).last_hidden_state.sum(), list(ours.parameters()))
    checkpoint_activations(ours)
    again = torch.autograd.grad(ours(IDS).last_hidden_state.sum(), list(ours.parameters()))
    for one, other in zip(again, expected, strict=True):
        assert_close(one, other)


@pytest.mark.parametrize("change", [{"hidden_act": "relu"}, {"is_decoder": True}])
def test_other_networks_are_left_to_transformers(change):
    tower = TextEncoderConfig("bert", TINY_TEXT.architecture | change).build().tower
    assert isinstance(tower, transformers.BertModel)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"hidden_siz": 3}, "BertConfig has no field hidden_siz"),
        ({"vocab_size": 2**21}, "vocab_size: .* is 2097152|BertConfig: vocab_size is 2097152"),
        ({"hidden_size": 25}, "not a multiple of the number of attention heads"),
        ({"num_hidden_layers": "two"}, "transformers makes no BertConfig of these values"),
    ],
)
def test_wrong_settings_are_refused_as_before(change, said):
    with pytest.raises(ValueError, match=said):
        TextEncoderConfig("bert", TINY_TEXT.architecture | change).build()
