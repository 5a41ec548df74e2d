"""The image side of a method as an ONNX file, compared with torch before it is kept."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from maskfree.config.extras import need
from maskfree.files.leftovers import replacing
from maskfree.inference.runtimes.sessions import OnnxSession
from maskfree.method import Method

INPUT = "images"
"""Name of the input: RGB in [0, 1], (b 3 h w), with sides that are multiples of the patch size."""

# Two photos that are neither square nor of whole coarse patches of 32 px.
_EXAMPLE_PATCHES, _OTHER_PATCHES = (2, 22, 31), (3, 17, 26)
# Largest difference of an output, relative to its largest value; float32 gives about 1e-6.
_TOLERANCE = 1e-4


class _ImageSide(nn.Module):
    """What a method computes of photos alone, as a network."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Call `Method.look`."""
        return self.method.look(images)


def export(method: Method, path: Path, about: Mapping[str, object]) -> float:
    """Write the image side of a method, for photos of any number and size.

    Args:
        method: Method on the CPU, in eval mode.
        path: File to write; kept only if onnxruntime gives what torch gives.
        about: Values that are written into the file, beside the patch size.

    Returns:
        Largest difference from torch on random photos of two sizes, relative to the outputs.

    Raises:
        ValueError: The method has no image side, packages are missing, the exporter cannot follow
            the network for photos of every size, or it gives something else in onnxruntime.
        OSError: The file cannot be written.
    """
    need("the export", "fast")
    import onnx

    patch_size = method.patch_size
    example = _random_images(_EXAMPLE_PATCHES, patch_size)
    num_outputs = len(_torch_outputs(method, example))
    names = [f"output_{number}" for number in range(num_outputs)]

    refused = f"the method {type(method).__name__} of these settings cannot be exported"
    # The exporter reports every step and every package that it does without.
    with warnings.catch_warnings(), _silent("torch.onnx"), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.onnx.export(
                _ImageSide(method).eval(),
                (example,),
                dynamo=True,
                dynamic_shapes={INPUT: {0: "batch", 2: "height", 3: "width"}},
                input_names=[INPUT],
                output_names=names,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise ValueError(f"{refused}: only torch runs it") from error
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(
        model,
        {
            "maskfree": json.dumps(
                {
                    **about,
                    "patch_px": patch_size,
                    "input": "RGB in [0, 1]; colors are normalized inside",
                    "outputs": "they depend on the photo alone, not on the words",
                }
            )
        },
    )

    with replacing(path) as unfinished:
        onnx.save(model, unfinished)
        try:
            difference = max(
                _difference(method, unfinished, _random_images(patches, patch_size))
                for patches in (_EXAMPLE_PATCHES, _OTHER_PATCHES)
            )
        except Exception as error:  # onnxruntime's errors have no common class of their own
            raise ValueError(f"{refused} for photos of every size: only torch runs it") from error
        if not difference <= _TOLERANCE:
            raise ValueError(
                f"the exported network differs from torch by {difference:.1e} of its values, "
                f"more than {_TOLERANCE:.0e}: it is not kept"
            )
    return difference


def _difference(method: Method, path: Path, images: Tensor) -> float:
    """Largest difference of an output in onnxruntime and torch, relative to its largest value."""
    worst = 0.0
    session = OnnxSession(path)
    for ours, theirs in zip(_torch_outputs(method, images), session(images), strict=True):
        if ours.shape != theirs.shape:
            return float("inf")
        worst = max(worst, float((ours - theirs).abs().max() / ours.abs().max()))
    return worst


@torch.inference_mode()
def _torch_outputs(method: Method, images: Tensor) -> tuple[Tensor, ...]:
    """The image side in torch."""
    return method.look(images)


def _random_images(patches: tuple[int, int, int], patch_size: int) -> Tensor:
    """Images of a number and size in patches, always the same."""
    count, rows, columns = patches
    values = np.random.default_rng(0).random((count, 3, rows * patch_size, columns * patch_size))
    return torch.from_numpy(values.astype(np.float32))


class _silent:  # noqa: N801 - used like a function
    """Context in which a logger reports errors only."""

    def __init__(self, name: str):
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *_: object) -> None:
        self._logger.setLevel(self._level)
