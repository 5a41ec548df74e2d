"""Retrieval of captions by photos and of photos by captions: ranks, recalls and what is refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.testing import assert_close

from color_patches import ColorPatches
from maskfree.data.examples import Example
from maskfree.evaluation import retrieval
from maskfree.evaluation.retrieval import (
    best_ranks_of_photos,
    ranks_of_captions,
    read_pairs,
    retrieve_captions,
    write_retrieval,
)
from maskfree.inference.config import Inference
from maskfree.inference.features import embed_photos
from maskfree.inference.segmenter import Segmenter
from maskfree.types import Groups, Tokens
from tiny import spread_out, tiny_vilseg_config

COLORS = ("red", "green", "blue", "black", "white", "teal")
RGB = ((250, 10, 10), (10, 250, 10), (10, 10, 250), (0, 0, 0), (255, 255, 255), (0, 128, 128))


class NamedColors(ColorPatches):
    """Embeds a caption as the color that it names, as `tokens` numbers them."""

    def encode_text(self, tokens: Tokens) -> Tensor:
        colors = torch.tensor(RGB)[tokens.ids[:, 0]] / 255
        constant = self.constant.expand_as(colors[:, :1])
        return F.normalize(torch.cat([colors, constant], dim=1), dim=-1).detach()


class NotNumbers(NamedColors):
    """A model with broken weights."""

    def group(self, images: Tensor) -> Groups:
        return Groups.of_pixels(images.new_full((len(images), 4, 2, 2), torch.nan))


def tokens(texts: Sequence[str]) -> Tokens:
    """The number of the color that each text names."""
    ids = [[number for number, color in enumerate(COLORS) if color in text] for text in texts]
    return Tokens(torch.tensor(ids), torch.ones(len(ids), 1, dtype=torch.bool))


def segmenter_of(method: ColorPatches, side_px: int = 448) -> Segmenter:
    return Segmenter(
        method=method, tokenizer=tokens, name="colors", inference=Inference(side_px=side_px)
    )


def example(number: int, captions: tuple[str, ...], size: tuple[int, int] = (24, 16)) -> Example:
    """A photo of one color, with captions."""
    content = io.BytesIO()
    Image.new("RGB", size, RGB[number]).save(content, "png")
    return Example(COLORS[number], "colors.tar", content.getvalue(), captions)


def write_shard(path: Path, files: Mapping[str, bytes]) -> str:
    """Write a shard with these files."""
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return str(path)


def plain_ranks(photos: Tensor, captions: Tensor, owners: list[int]) -> tuple[list[int], list[int]]:
    """Ranks by loops: sorted lists in which wrong candidates come first where scores are equal."""
    of_photos = []
    for number, photo in enumerate(photos):
        scored = [
            (-float(photo @ caption), owner == number)
            for caption, owner in zip(captions, owners, strict=True)
        ]
        of_photos.append([right for _, right in sorted(scored)].index(True))

    of_captions = []
    for caption, owner in zip(captions, owners, strict=True):
        scored = [(-float(photo @ caption), i == owner) for i, photo in enumerate(photos)]
        of_captions.append([right for _, right in sorted(scored)].index(True))
    return of_photos, of_captions


@pytest.mark.parametrize("chunk", [3, 1024])
@pytest.mark.parametrize("seed", range(4))
def test_ranks_equal_those_of_a_sorted_list(monkeypatch: pytest.MonkeyPatch, chunk: int, seed: int):
    """Embeddings of few whole numbers, so that many scores are equal; captions are not as many for
    each photo, and not in order.
    """
    monkeypatch.setattr(retrieval, "_CHUNK", chunk)
    torch.manual_seed(seed)
    owners = torch.tensor([4, 0, 2, 2, 1, 3, 0, 4, 4, 2, 3])
    photos = torch.randint(-2, 3, (5, 3)).float()
    captions = torch.randint(-2, 3, (len(owners), 3)).float()

    of_photos, of_captions = plain_ranks(photos, captions, owners.tolist())
    assert best_ranks_of_photos(photos, captions, owners).tolist() == of_photos
    assert ranks_of_captions(photos, captions, owners).tolist() == of_captions


def test_the_order_of_photos_and_captions_does_not_matter():
    owners = torch.arange(6).repeat_interleave(2)
    photos = F.normalize(torch.randn(6, 4), dim=-1)
    captions = F.normalize(torch.randn(12, 4), dim=-1)
    ranks = best_ranks_of_photos(photos, captions, owners)
    order, other = torch.randperm(6), torch.randperm(12)
    # Photo number i is now in place order.argsort()[i].
    moved = order.argsort()[owners[other]]
    assert_close(best_ranks_of_photos(photos[order], captions[other], moved), ranks[order])
    assert_close(
        ranks_of_captions(photos[order], captions[other], moved),
        ranks_of_captions(photos, captions, owners)[other],
    )


def test_a_model_that_gives_all_the_same_finds_nothing():
    owners = torch.arange(3).repeat_interleave(5)
    same = torch.ones(3, 2), torch.ones(15, 2)
    assert best_ranks_of_photos(*same, owners).tolist() == [10] * 3
    assert ranks_of_captions(*same, owners).tolist() == [2] * 15


def test_recalls_of_colors_that_captions_name():
    """Six photos; the second is called blue and the third green, and the others as they are."""
    named = [*COLORS]
    named[1], named[2] = "blue", "green"
    pairs = [example(number, (f"all {named[number]}",)) for number in range(6)]
    # A second, right caption of the second photo.
    pairs[1] = example(1, ("all blue", "quite green"))

    photos, captions = retrieve_captions(segmenter_of(NamedColors(), side_px=16), pairs)
    assert (photos.query, photos.num_queries) == ("photo", 6)
    assert (captions.query, captions.num_queries) == ("caption", 7)
    # The third photo finds a wrong caption first; the second ties with that of the third.
    assert photos.recall_1 == pytest.approx(4 / 6)
    assert captions.recall_1 == pytest.approx(5 / 7)
    assert (photos.recall_10, captions.recall_10) == (1, 1)


def test_embeddings_of_photos_are_those_of_one_photo_at_a_time(
    tiny_tokenizer, photo: Callable[..., Image.Image]
):
    """Equal sizes share a batch, others and more than a batch do not."""
    method = spread_out(tiny_vilseg_config(vision=None).build()).eval()
    segmenter = Segmenter(
        method=method, tokenizer=tiny_tokenizer, inference=Inference(side_px=48, batch_size=2)
    )
    sizes = [(80, 64), (80, 64), (80, 64), (64, 80), (100, 50), (100, 50), (33, 57)]
    photos = [photo(size).rotate(90 * number, expand=False) for number, size in enumerate(sizes)]
    found = embed_photos(segmenter, iter(photos))
    assert found.shape == (7, 18)
    assert_close(found.norm(dim=-1), torch.ones(7))
    assert (found[0] - found[1]).abs().max() > 1e-3

    for each, own in zip(photos, found, strict=True):
        width, height = each.size
        scale = 48 / min(each.size)
        small = each.resize(
            (round(width * scale), round(height * scale)),
            Image.Resampling.BILINEAR,
            reducing_gap=3.0,
        )
        pixels = torch.tensor(list(small.convert("RGB").tobytes())) / 255
        pixels = pixels.reshape(1, small.height, small.width, 3).permute(0, 3, 1, 2)
        padding = (0, -small.width % 16, 0, -small.height % 16)
        with torch.no_grad():
            overall = method.group(F.pad(pixels, padding, mode="replicate")).overall
        assert_close(own, overall[0], atol=1e-5, rtol=1e-4)


def test_embeddings_that_are_not_numbers_are_refused():
    pairs = [example(0, ("red",)), example(1, ("green",))]
    with pytest.raises(ValueError, match="the model colors gave embeddings that are not numbers"):
        retrieve_captions(segmenter_of(NotNumbers()), pairs)


def test_a_photo_that_cannot_be_decoded_is_named():
    broken = Example("07", "some.tar", b"no photo", ("red",))
    with pytest.raises(ValueError, match=r"^07 of some\.tar: "):
        retrieve_captions(segmenter_of(NamedColors()), [example(0, ("red",)), broken])


def test_no_pair_is_left_out(tmp_path: Path):
    pytest.importorskip("webdataset")
    good = {"a.png": example(0, ()).photo, "a.json": b'{"captions": ["red", "so red"]}'}
    (pair,) = read_pairs([write_shard(tmp_path / "good.tar", good)])
    assert (pair.key, pair.captions) == ("a", ("red", "so red"))

    for name, files, reason in (
        ("captionless", good | {"b.png": good["a.png"]}, r"b of .*captionless\.tar: no caption"),
        ("photoless", good | {"b.txt": b"red"}, r"b of .*photoless\.tar: no photo"),
        ("empty", {}, "no photos with captions"),
    ):
        with pytest.raises(ValueError, match=reason):
            read_pairs([write_shard(tmp_path / f"{name}.tar", files)])

    cut = Path(write_shard(tmp_path / "cut.tar", good))
    cut.write_bytes(cut.read_bytes()[:700])
    with pytest.raises(ValueError, match=r"cut\.tar: broken shard"):
        read_pairs([str(cut)])


def test_the_row_tells_what_it_depends_on(tmp_path: Path):
    pairs = [example(0, ("red", "dark red")), example(2, ("blue",))]
    segmenter = segmenter_of(NamedColors(), side_px=16)
    rows = retrieve_captions(segmenter, pairs)
    path = write_retrieval(rows, segmenter, pairs, "the command", tmp_path)
    assert path == tmp_path / "retrieval-colors.json"
    content = json.loads(path.read_text())
    assert (content["kind"], content["num_photos"], content["num_captions"]) == ("retrieval", 2, 3)
    assert content["protocol"]["side_px"] == 16
    assert [row["query"] for row in content["rows"]] == ["photo", "caption"]
    assert [row["recall_1"] for row in content["rows"]] == [1, 1]

    other = [pairs[0], example(2, ("so blue",))]
    again = json.loads(write_retrieval(rows, segmenter, other, "", tmp_path).read_text())
    assert again["captions_sha256"] != content["captions_sha256"]
