"""Products of matrices by oneDNN against torch's own, and the processors that take them."""

from __future__ import annotations

import pytest
import torch
from torch.testing import assert_close

from maskfree.ops import onednn

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no oneDNN"
)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.randn(5, 7), torch.randn(11, 7)),
        (torch.randn(7, 5).T, torch.randn(7, 11).T),
        (torch.randn(1, 7).expand(5, 7), torch.randn(1, 7).expand(11, 7)),
        (torch.randn(9, 14)[1:6, ::2], torch.randn(1, 7)),
        (torch.randn(0, 7), torch.randn(11, 7)),
    ],
    ids=["rows", "transposed", "repeated", "parts", "none"],
)
@pytest.mark.parametrize("is_faster", [True, False])
def test_products_are_those_of_all_pairs_of_rows(monkeypatch, is_faster, first, second):
    monkeypatch.setattr(onednn, "is_faster", lambda: is_faster)
    found = onednn.products(first, second)
    expected = (first.double()[:, None] * second.double()).sum(2)
    assert_close(found.double(), expected, atol=1e-5, rtol=1e-5)


def test_products_of_other_kinds_are_left_to_torch(monkeypatch):
    monkeypatch.setattr(onednn, "is_faster", lambda: True)
    monkeypatch.setattr(onednn, "linear", None)
    first, second = torch.randn(5, 7), torch.randn(11, 7)
    for dtype in (torch.float64, torch.bfloat16):
        rows, others = first.to(dtype), second.to(dtype)
        assert torch.equal(onednn.products(rows, others), rows @ others.T)


@pytest.mark.parametrize(
    ("vendor", "capability", "expected"),
    [
        ("AuthenticAMD", "AVX512", True),
        ("AuthenticAMD", "AVX2", False),
        ("GenuineIntel", "AVX512", False),
    ],
)
def test_only_amd_with_avx512_is_faster(monkeypatch, vendor, capability, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(onednn.Path, "read_text", lambda *_, **__: f"vendor_id : {vendor}")
    # Past the cache, which holds the answer for this processor.
    assert onednn.is_faster.__wrapped__() is expected
