"""Transformer layers against PyTorch's own, and how branches are dropped."""

import pytest
import torch
from torch import nn
from torch.testing import assert_close

from maskfree.nn.transformer import Block, CrossAttention, CrossBlock, DropPath, Mlp, SelfAttention


def attention_of_torch(weight, bias, proj):
    attention = nn.MultiheadAttention(12, 3, batch_first=True).eval()
    attention.load_state_dict(
        {
            "in_proj_weight": weight,
            "in_proj_bias": bias,
            "out_proj.weight": proj.weight,
            "out_proj.bias": proj.bias,
        }
    )
    return attention


@torch.no_grad()
def test_self_attention_is_that_of_torch():
    ours = SelfAttention(dim=12, num_heads=3)
    tokens = torch.randn(2, 5, 12)
    expected = attention_of_torch(ours.qkv.weight, ours.qkv.bias, ours.proj)(
        tokens, tokens, tokens
    )[0]
    assert_close(ours(tokens), expected)


@torch.no_grad()
def test_cross_attention_is_that_of_torch():
    ours = CrossAttention(dim=12, num_heads=3)
    parts = (ours.q_proj, ours.k_proj, ours.v_proj)
    weight, bias = (
        torch.cat([getattr(part, name) for part in parts]) for name in ("weight", "bias")
    )
    queries, tokens = torch.randn(2, 4, 12), torch.randn(2, 7, 12)
    expected = attention_of_torch(weight, bias, ours.proj)(queries, tokens, tokens)[0]
    assert_close(ours(queries, tokens), expected)


@torch.no_grad()
def test_a_block_is_the_pre_norm_layer_of_torch():
    ours = Block(dim=12, num_heads=3).eval()
    theirs = nn.TransformerEncoderLayer(
        12, 3, 48, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    names = {
        "attn.qkv.": "self_attn.in_proj_",
        "attn.proj": "self_attn.out_proj",
        "mlp.fc1": "linear1",
    }
    names |= {"mlp.fc2": "linear2"}
    state = {}
    for name, value in ours.state_dict().items():
        for own, other in names.items():
            name = name.replace(own, other)
        state[name] = value
    theirs.load_state_dict(state)
    tokens = torch.randn(2, 5, 12)
    assert_close(ours(tokens), theirs(tokens))


@torch.no_grad()
def test_a_cross_block_does_not_care_for_the_order_of_tokens_and_keeps_that_of_queries():
    block = CrossBlock(dim=12, num_heads=3).eval()
    queries, tokens = torch.randn(2, 4, 12), torch.randn(2, 7, 12)
    updated = block(queries, tokens)
    assert_close(block(queries, tokens[:, torch.randperm(7)]), updated)
    assert_close(block(queries.flip(1), tokens), updated.flip(1))
    assert_close(updated.mean(2), torch.zeros(2, 4), atol=1e-6, rtol=0)  # normalized last


def test_an_mlp_may_change_the_width():
    assert Mlp(dim=6, hidden=9, out=4)(torch.randn(2, 3, 6)).shape == (2, 3, 4)


def test_dropped_branches_are_whole_samples_and_the_mean_stays():
    drop = DropPath(0.25).train()
    branch = torch.ones(4000, 2, 3)
    dropped = drop(branch)
    each = dropped.flatten(1)
    assert (each == each[:, :1]).all()
    assert_close(each.unique(), torch.tensor([0.0, 4 / 3]))
    assert abs(dropped.mean() - 1) < 0.05
    assert drop.eval()(branch) is branch


def test_heads_must_divide_the_width():
    for part in (SelfAttention, CrossAttention, Block, CrossBlock):
        with pytest.raises(ValueError, match="num_heads 5 does not divide the 12 dimensions"):
            part(dim=12, num_heads=5)
