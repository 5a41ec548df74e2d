"""ViL-Seg with one thing changed at a time: what is trained, what is derived from it, and
clustering heads.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from maskfree.data.loader import NoSamples, Stream, build_loader
from maskfree.data.order import Share, seed_of
from maskfree.engine.config import Recipe
from maskfree.engine.optimizers import cosine, parameter_groups
from maskfree.files.atomic import replace_bytes
from maskfree.hub import checkpoint
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.methods.vilseg.model import ViLSeg
from maskfree.methods.vilseg.objectives import unflip
from maskfree.text.tokenize import Tokenizer
from studies.training import trained

PIXELS_PER_PHOTO = 64
PIXELS_PER_STEP = (32, 8, 8)  # of a head's training, in the shape of a batch of maps
HEAD_RATE = 3e-3

Heads = dict[int, dict[str, Tensor]]


@dataclass(frozen=True)
class Study:
    """One recipe and seed, and the folder of its runs; what lies there is used.

    No gradient of the clustering head reaches the encoder, so heads are trained afterwards, all
    alike: on the embeddings of HEAD_PHOTOS photos and their augmented views, for HEAD_STEPS steps.
    """

    recipe: Recipe
    out: Path
    head_photos: int
    head_steps: int

    @property
    def method(self) -> ViLSegConfig:
        """The recipe's method, of which every variant is a change.

        Raises:
            ValueError: the recipe trains something else.
        """
        method = self.recipe.method
        if not isinstance(method, ViLSegConfig) or method.cluster is None:
            raise ValueError("the study needs a ViL-Seg recipe with a clustering head")
        return replace(method, grouping="clusters")

    def trained(self, name: str, method: ViLSegConfig) -> Path:
        """Train METHOD and return its checkpoint.

        Raises:
            Stopped: SIGINT or SIGTERM came in between.
        """
        return trained(
            replace(self.recipe, name=f"{self.recipe.name}-{name}", method=method), self.out / name
        )

    def derived(
        self, name: str, source: Path, method: ViLSegConfig, head: Mapping[str, Tensor]
    ) -> Path:
        """Save the weights of SOURCE as METHOD, HEAD's in the place of the clustering head's."""
        folder = self.out / name / "model"
        if not (folder / "run.json").is_file():
            weights, tokenizer, run = _read(source)
            state = weights.state_dict() | dict(head)
            config = method.for_inference()
            built = config.build()
            built.load_state_dict({key: state[key] for key in built.state_dict()})
            record = {key: run[key] for key in ("templates", "inference")} | {"of": run["name"]}
            record["name"] = f"{self.recipe.name}-{name}"
            checkpoint.save(folder, built, config, tokenizer, record, self.recipe.train.storage)
        return folder

    def heads(self, source: Path, counts: Sequence[int]) -> Heads:
        """Train a clustering head of each of COUNTS clusters on the embeddings of SOURCE.

        Weights by count.
        """
        pairs = self.pairs(source)
        return {count: self._head(count, *pairs) for count in counts}

    def kept_heads(self, source: Path, counts: Sequence[int], path: Path) -> Heads:
        """Train heads as `heads` does, once, and keep them in PATH."""
        kept: Heads = torch.load(path, weights_only=True) if path.is_file() else {}
        missing = [count for count in counts if count not in kept]
        if not missing:
            return kept
        heads = kept | self.heads(source, missing)
        content = io.BytesIO()
        torch.save(heads, content)
        replace_bytes(path, content.getvalue())
        return heads

    def with_clusters(self, count: int) -> ViLSegConfig:
        """The method with COUNT clusters."""
        assert self.method.cluster is not None
        return replace(self.method, cluster=replace(self.method.cluster, num_clusters=count))

    def _head(
        self, count: int, first: Float[Tensor, "n d"], second: Float[Tensor, "n d"]
    ) -> dict[str, Tensor]:
        config, seed = self.recipe.train, seed_of(self.recipe.train.seed, "head", count)
        torch.manual_seed(seed)
        cluster = self.with_clusters(count).cluster
        assert cluster is not None
        term = cluster.build(self.method.embed_dim)
        optimizer = torch.optim.AdamW(
            parameter_groups(term.named_parameters(), config.weight_decay, {}), lr=HEAD_RATE
        )
        generator = torch.Generator().manual_seed(seed)
        photos, rows, columns = PIXELS_PER_STEP
        flipped = torch.zeros(photos, dtype=torch.bool)
        for step in range(self.head_steps):
            for group in optimizer.param_groups:
                group["lr"] = HEAD_RATE * cosine(step, self.head_steps, self.head_steps // 10)
            chosen = torch.randint(len(first), (photos, rows, columns), generator=generator)
            pixels, augmented_view = (
                side[chosen].movedim(-1, 1).float() for side in (first, second)
            )
            term(pixels, augmented_view, flipped, lambda tensor: tensor).total.backward()
            optimizer.step()
            optimizer.zero_grad()
        return {f"cluster.{key}": value for key, value in term.state_dict().items()}

    @torch.inference_mode()
    def pairs(self, source: Path) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
        """Embeddings of pixels and of the same pixels in the augmented views, from
        training photos.
        """
        method, tokenizer, _ = _read(source)
        sides: tuple[list[Tensor], list[Tensor]] = ([], [])
        generator = torch.Generator().manual_seed(seed_of(self.recipe.train.seed, "pixels"))
        for batch in self._batches(tokenizer, source.parent / "data"):
            maps = (
                method.image(batch.images),
                unflip(method.image(batch.augmented_view), batch.augmented_flipped),
            )
            chosen = torch.randint(maps[0][0, 0].numel(), (PIXELS_PER_PHOTO,), generator=generator)
            for side, pixels in zip(sides, maps, strict=True):
                side.append(pixels.flatten(2)[:, :, chosen].movedim(1, 2).flatten(0, 1).half())
            if len(sides[0]) * len(batch.images) >= self.head_photos:
                break
        return torch.cat(sides[0]).clone(), torch.cat(sides[1]).clone()

    def _batches(self, tokenizer: Tokenizer, drawn: Path) -> Iterator[Any]:
        data, config = self.recipe.data, self.recipe.train
        if data.shapes:  # drawn by the run that is the source
            data = replace(data, shapes=0, shards=(str(drawn),))
        transform = replace(self.method, vision=None, words=None).build_transform(tokenizer)
        stream = Stream(
            data, transform, config.batch_size, seed_of(config.seed, "heads"), Share(0, 1)
        )
        for item in build_loader(stream, 0):
            if isinstance(item, NoSamples):
                raise item
            yield item.batch.to(torch.device("cpu"))


def _read(folder: Path) -> tuple[ViLSeg, Tokenizer, dict[str, Any]]:
    method, tokenizer, run, _ = checkpoint.load(
        folder, {ViLSegConfig.__name__: ViLSegConfig}, "cpu"
    )
    assert isinstance(method, ViLSeg)
    return method, tokenizer, run
