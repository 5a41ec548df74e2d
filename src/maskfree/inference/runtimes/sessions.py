"""Exported networks in onnxruntime and OpenVINO, opened where they are first used."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from maskfree.inference.runtimes.eight_bits import InputRanges, in_eight_bits

Run = Callable[[np.ndarray], list[np.ndarray]]


class Session(ABC):
    """An exported network. Picklable: it is opened anew where it is used.

    Args:
        path: The ONNX file.
        input_ranges: Ranges of the inputs of layers, for computing in 8 bits.
    """

    name: ClassVar[str]
    """Name of the runtime."""

    def __init__(self, path: Path, input_ranges: InputRanges | None = None):
        self.path = path
        self.input_ranges = input_ranges
        self._whole: Run | None = None
        self._embedding: Run | None = None
        self._lock = Lock()

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the network.

        Args:
            images: Images on the CPU, (b 3 h w) in [0, 1].

        Returns:
            Outputs as `Method.look` gives them.
        """
        with self._lock:
            if self._whole is None:
                self._whole = self._open(embedding=False)
        return _tensors(self._whole(_array(images)))

    def embed(self, images: Tensor) -> tuple[Tensor, ...]:
        """Run the part of the network that the first output needs.

        Args:
            images: Images on the CPU, (b 3 h w) in [0, 1].

        Returns:
            The first output of `Method.look` alone, which is enough for `Method.groups_of`.
        """
        with self._lock:
            if self._embedding is None:
                self._embedding = self._open(embedding=True)
        return _tensors(self._embedding(_array(images)))

    @abstractmethod
    def _open(self, *, embedding: bool) -> Run:
        """Read the file and return the function that runs it, or its first output alone."""

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path, "input_ranges": self.input_ranges}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)


class OnnxSession(Session):
    """A network in onnxruntime."""

    name = "onnx"

    def _open(self, *, embedding: bool) -> Run:
        """Read the file; threads sleep while they wait, as those of torch in commands."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # errors are raised
        session = onnxruntime.InferenceSession(
            _first_output(self.path) if embedding else str(self.path),
            options,
            providers=["CPUExecutionProvider"],
        )
        name = session.get_inputs()[0].name

        def run(images: np.ndarray) -> list[np.ndarray]:
            """Run on a batch."""
            return list(session.run(None, {name: images}))

        return run


class OpenVinoSession(Session):
    """A network in OpenVINO, in float32."""

    name = "openvino"
    precision: ClassVar[str] = "f32"
    """Number format that OpenVINO computes in, where the processor has it."""

    def _open(self, *, embedding: bool) -> Run:
        """Compile the network; what is compiled is kept beside the file."""
        import openvino

        core = openvino.Core()
        core.set_property({"CACHE_DIR": str(self.path.with_suffix(".openvino"))})
        settings = {
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        network = self._read(core)
        if embedding:
            network = openvino.Model([network.outputs[0].get_node()], network.get_parameters())
        compiled = core.compile_model(network, "CPU", settings)
        lock = Lock()

        def run(images: np.ndarray) -> list[np.ndarray]:
            """Run on a batch; one at a time, since a request has one set of outputs."""
            with lock:
                return [np.array(output) for output in compiled(images).values()]

        return run

    def _read(self, core: Any) -> Any:
        """Read the network from its file."""
        return core.read_model(str(self.path))


class OpenVinoBf16Session(OpenVinoSession):
    """A network in OpenVINO, in bf16 on processors that have it."""

    name = "openvino-bf16"
    precision = "bf16"


class OpenVinoInt8Session(OpenVinoBf16Session):
    """A network in OpenVINO whose convolutions compute in 8 bits."""

    name = "openvino-int8"

    def _read(self, core: Any) -> Any:
        """Read the network, and round what its convolutions take."""
        network = super()._read(core)
        if self.input_ranges is not None:
            in_eight_bits(network, self.input_ranges)
        return network


def _first_output(path: Path) -> bytes:
    """The part of a network that its first output needs, as the bytes of a file."""
    import onnx
    from onnx.utils import Extractor

    network = onnx.load(path)
    inputs = [each.name for each in network.graph.input]
    return (
        Extractor(network).extract_model(inputs, [network.graph.output[0].name]).SerializeToString()
    )


def _array(images: Tensor) -> np.ndarray:
    """Images as an array whose rows lie one after the other."""
    return images.contiguous().numpy()


def _tensors(outputs: list[np.ndarray]) -> tuple[Tensor, ...]:
    """Outputs as tensors."""
    return tuple(map(torch.from_numpy, outputs))
