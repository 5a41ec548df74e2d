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
    features, branch = torch.randn(4000, 2, 3), torch.ones(4000, 2, 3)
    added = drop(features, lambda ones: ones, branch) - features
    each = added.flatten(1).round(decimals=3)
    assert (each == each[:, :1]).all()
    assert_close(each.unique(), torch.tensor([0.0, 1.333]))
    assert abs(added.mean() - 1) < 0.05
    assert torch.equal(drop.eval()(features, lambda ones: ones, branch), features + branch)


# None of three, some of 30, all of three.
@pytest.mark.parametrize(("share", "count"), [(0.999, 3), (0.5, 30), (0.001, 3)])
@pytest.mark.parametrize("masked", [False, True])
def test_a_block_with_dropped_branches_is_the_plain_one_times_the_draws(share, count, masked):
    block = Block(dim=12, num_heads=3, drop_path=share).train()
    attended = None
    if masked:
        attended = torch.rand(count, 5) > 0.5
        attended[:, 2] = True
    tokens = torch.randn(count, 5, 12)

    def plain(tokens):
        for part in (
            lambda x: block.attn(block.norm1(x), attended),
            lambda x: block.mlp(block.norm2(x)),
        ):
            drawn = torch.empty(count, 1, 1).bernoulli_(1 - share) / (1 - share)
            tokens = tokens + part(tokens) * drawn
        return tokens

    found = []
    for way in (lambda tokens: block(tokens, attended), plain):
        torch.manual_seed(1)
        block.zero_grad()
        leaf = tokens.clone().requires_grad_()
        output = way(leaf)
        output.square().sum().backward()
        found.append([output, leaf.grad, *(weight.grad for weight in block.parameters())])
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("share", [0.0, 0.5])
def test_a_block_may_update_the_last_tokens_only(share):
    block = Block(dim=12, num_heads=3, drop_path=share).train()
    attended = torch.rand(8, 7) > 0.3
    attended[:, 2] = True
    tokens, found = torch.randn(8, 7, 12), []
    for num_read in (None, 3):
        torch.manual_seed(1)
        block.zero_grad()
        leaf = tokens.clone().requires_grad_()
        output = block(leaf, attended, num_read)[:, -3:]
        output.square().sum().backward()
        found.append([output, leaf.grad, *(weight.grad for weight in block.parameters())])
    assert found[1][0].shape == (8, 3, 12)
    for ours, expected in zip(*found, strict=True):
        assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_heads_must_divide_the_width():
    for part in (SelfAttention, CrossAttention, Block, CrossBlock):
        with pytest.raises(ValueError, match="num_heads 5 does not divide the 12 dimensions"):
            part(dim=12, num_heads=5)
