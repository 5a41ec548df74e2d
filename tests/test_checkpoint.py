from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kills import killed_at_each_step
from maskfree.data.sample import Transform
from maskfree.hub import checkpoint
from maskfree.hub.catalog import model_folder
from maskfree.method import Method
from maskfree.method_config import MethodConfig
from maskfree.methods.vilseg.config import ViLSegConfig
from maskfree.nn.encoder_config import ImageEncoderConfig
from maskfree.text.tokenize import Tokenizer
from maskfree.types import Batch, Groups, Losses, Tokens
from tiny import tiny_vilseg_config

CONFIGS: dict[str, type[MethodConfig]] = {"ViLSegConfig": ViLSegConfig}
RUN = {"name": "tiny", "templates": ["{}"], "settings": {"seed": 7}}


class Layers(Method):
    """A bit of everything that a state can hold."""

    def __init__(self, width: int):
        super().__init__()
        self.wide = nn.Linear(width, 50)
        self.narrow = nn.Linear(3, 2)
        self.tied = self.narrow.weight
        self.convolution = nn.Conv2d(16, 32, 3).to(memory_format=torch.channels_last)
        self.register_buffer("counter", torch.tensor(5))
        self.register_buffer("ramp", torch.linspace(0, 1, width), persistent=False)
        self.register_buffer("sevens", torch.empty(4).fill_(7), persistent=False)

    def forward(self, batch: Batch) -> Losses:
        raise NotImplementedError

    def encode_text(self, tokens: Tokens) -> Tensor:
        raise NotImplementedError

    def group(self, images: Tensor) -> Groups:
        raise NotImplementedError

    @property
    def logit_scale(self) -> float:
        raise NotImplementedError

    @property
    def patch_size(self) -> int:
        return 16


@dataclass(frozen=True)
class Part:
    sides: tuple[int, ...] = (3, 4)
    weights: str | None = None


@dataclass(frozen=True)
class LayersConfig(MethodConfig):
    width: int = 100
    rate: float = 1.0
    part: Part | None = field(default_factory=Part)

    def build(self) -> Method:
        return Layers(self.width)

    def build_transform(self, tokenizer: Any) -> Transform:
        raise NotImplementedError

    def tokenizer_source(self) -> str:
        raise NotImplementedError

    def without_pretrained(self) -> MethodConfig:
        return replace(self, part=replace(self.part, weights=None) if self.part else None)

    def for_inference(self) -> MethodConfig:
        return self.without_pretrained()


def states(
    folder: Path, tokenizer: Tokenizer, storage: str
) -> tuple[dict[str, Tensor], dict[str, Tensor], Method]:
    config = LayersConfig()
    method = config.build()
    checkpoint.save(folder, method, config, tokenizer, RUN, storage)
    loaded, *_ = checkpoint.load(folder, {"LayersConfig": LayersConfig})
    return method.state_dict(), loaded.state_dict(), loaded


def test_float32_comes_back_exactly(tmp_path: Path, tiny_tokenizer: Tokenizer):
    before, after, loaded = states(tmp_path / "c", tiny_tokenizer, "float32")
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name
    assert not loaded.training
    assert all(parameter.requires_grad for parameter in loaded.parameters())


def test_buffers_that_are_not_stored_and_memory_formats_are_right(
    tmp_path: Path, tiny_tokenizer: Tokenizer
):
    *_, loaded = states(tmp_path / "c", tiny_tokenizer, "int8")
    torch.testing.assert_close(loaded.ramp, torch.linspace(0, 1, 100))
    assert loaded.sevens.tolist() == [7] * 4
    assert loaded.tied is loaded.narrow.weight
    assert loaded.convolution.weight.is_contiguous(memory_format=torch.channels_last)


def test_small_storage_is_close_and_small(tmp_path: Path, tiny_tokenizer: Tokenizer):
    for storage, large in (("float16", 5e-4), ("int8", 1 / 254)):
        before, after, _ = states(tmp_path / storage, tiny_tokenizer, storage)
        for name in ("wide.weight", "convolution.weight"):
            error = (after[name] - before[name]).flatten(1).abs().amax(1)
            assert (error <= 1.01 * large * before[name].flatten(1).abs().amax(1)).all()
        assert after["counter"] == 5
    assert torch.equal(after["narrow.weight"], before["narrow.weight"]), (
        "small tensors stay as they are"
    )
    assert load_file(tmp_path / "int8" / "weights.safetensors")["wide.weight"].dtype == torch.int8


def test_rows_of_zeros_survive_int8(tmp_path: Path, tiny_tokenizer: Tokenizer):
    config = LayersConfig()
    method = config.build()
    with torch.no_grad():
        method.wide.weight[3] = 0
    checkpoint.save(tmp_path / "c", method, config, tiny_tokenizer, RUN, "int8")
    loaded, *_ = checkpoint.load(tmp_path / "c", {"LayersConfig": LayersConfig})
    assert loaded.wide.weight[3].tolist() == [0] * 100


def test_method_tokenizer_and_run_come_back(tmp_path: Path, tiny_vilseg, tiny_tokenizer: Tokenizer):
    config = tiny_vilseg_config(vision=None)
    folder = tmp_path / "c"
    checkpoint.save(folder, tiny_vilseg, config, tiny_tokenizer, RUN)
    method, tokenizer, run, weights_hash = checkpoint.load(folder, CONFIGS)
    texts = ["a dog on the grass", "a red sofa"]
    torch.testing.assert_close(
        method.encode_text(tokenizer(texts)), tiny_vilseg.encode_text(tiny_tokenizer(texts))
    )
    images, classes = torch.rand(1, 3, 32, 48), tiny_vilseg.encode_text(tiny_tokenizer(texts))
    torch.testing.assert_close(
        method.segment(images, classes), tiny_vilseg.segment(images, classes)
    )
    assert (run["name"], run["settings"], run["method"]) == ("tiny", {"seed": 7}, "ViLSegConfig")
    assert len(weights_hash) == 64
    assert sorted(path.name for path in folder.iterdir()) == [
        "run.json",
        "tokenizer.json",
        "weights.safetensors",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c"]


def test_random_values_are_skipped_while_loading(tiny_checkpoint: Path):
    before = torch.get_rng_state()
    checkpoint.load(tiny_checkpoint, CONFIGS)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def _patience() -> Iterator[None]:
    """A test that hangs fails."""

    def complain(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, complain)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class Truncated(Layers):
    """Draws what must lie in bounds, into memory that holds anything."""

    def __init__(self, width: int):
        super().__init__(width)
        self.drawn = nn.Parameter(nn.init.trunc_normal_(torch.full((width,), float("nan"))))


@dataclass(frozen=True)
class TruncatedConfig(LayersConfig):
    def build(self) -> Method:
        return Truncated(self.width)


@pytest.mark.usefixtures("_patience")
def test_truncated_normals_do_not_wait_for_random_values(tmp_path: Path, tiny_tokenizer: Tokenizer):
    config = TruncatedConfig()
    method = config.build()
    checkpoint.save(tmp_path / "c", method, config, tiny_tokenizer, RUN)
    loaded, *_ = checkpoint.load(tmp_path / "c", {"TruncatedConfig": TruncatedConfig})
    assert torch.equal(loaded.drawn, method.drawn)


@pytest.mark.usefixtures("_patience")
def test_vision_transformer_comes_back(tmp_path: Path, tiny_tokenizer: Tokenizer):
    """Its weights start as truncated normals."""
    sizes = {
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
    }
    image = ImageEncoderConfig("vit", sizes | {"image_size": 32, "patch_size": 8})
    config = tiny_vilseg_config(image=image, vision=None)
    method = config.build().eval()
    checkpoint.save(tmp_path / "c", method, config, tiny_tokenizer, RUN)
    loaded, *_ = checkpoint.load(tmp_path / "c", CONFIGS)
    images = torch.rand(2, 3, 24, 40)
    assert torch.equal(loaded.image(images), method.image(images))


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_are_as_open_as_others_that_the_user_makes(
    tmp_path: Path, tiny_tokenizer: Tokenizer, umask: int
):
    config = LayersConfig()
    before = os.umask(umask)
    try:
        for _ in range(2):
            checkpoint.save(tmp_path / "c", config.build(), config, tiny_tokenizer, RUN)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "c").iterdir()}
    assert modes == dict.fromkeys(
        ("weights.safetensors", "run.json", "tokenizer.json"), 0o666 & ~umask
    )
    assert (tmp_path / "c").stat().st_mode & 0o777 == 0o777 & ~umask


def test_weights_are_hashed(tiny_checkpoint: Path):
    *_, first = checkpoint.load(tiny_checkpoint, CONFIGS)
    path = tiny_checkpoint / "weights.safetensors"
    tensors = load_file(path)
    for tensor in tensors.values():
        tensor.mul_(2)
    save_file(tensors, path)
    *_, second = checkpoint.load(tiny_checkpoint, CONFIGS)
    assert first != second


def change_tensors(folder: Path, change) -> None:
    path = folder / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("cross.log_scale", t.pop(sorted(t)[0], None)), "tensors are missing: "),
        (lambda t: t.update(stray=torch.zeros(2)), "tensors are left over: stray"),
        (
            lambda t: t.update({sorted(t)[0]: torch.zeros(9, 9, 9)}),
            r"is \(9, 9, 9\) where the method has",
        ),
        (lambda t: t.update({k: v.to(torch.int32) for k, v in t.items()}), "is torch.int32 where"),
        (lambda t: t.update({sorted(t)[0] + "::scale": torch.zeros(999)}), "scales of"),
    ],
)
def test_tensors_that_do_not_fit(tiny_checkpoint: Path, change, message: str):
    change_tensors(tiny_checkpoint, change)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(tiny_checkpoint, CONFIGS)
    assert "weights.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"junk" * 99, b"\xff" * 64])
def test_damaged_weights(tiny_checkpoint: Path, content: bytes):
    (tiny_checkpoint / "weights.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(tiny_checkpoint, CONFIGS)


def test_truncated_weights(tiny_checkpoint: Path):
    path = tiny_checkpoint / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ValueError, match="damaged"):
        checkpoint.load(tiny_checkpoint, CONFIGS)


def change_run(folder: Path, change) -> None:
    path = folder / "run.json"
    run = json.loads(path.read_text())
    change(run)
    path.write_text(json.dumps(run))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda run: run.update(format=2), "format 2 is unknown"),
        (lambda run: run.update(format="1"), "format '1' is unknown"),
        (lambda run: run.pop("name"), "name"),
        (lambda run: run.update(templates="{}"), "templates"),
        (lambda run: run.update(templates=[1]), "templates"),
        (lambda run: run.update(config=[]), "config"),
        (lambda run: run.update(method="os.system"), "method 'os.system' is unknown: ViLSegConfig"),
        (lambda run: run["config"].update(embed_dim="18"), "embed_dim"),
        (lambda run: run["config"].update(secret=1), "secret"),
        (lambda run: run["config"]["image"].update(weights="someone/else"), "outside weights"),
        (lambda run: run["config"].update(embed_dim=19), "where the method has"),
    ],
)
def test_run_file_that_does_not_fit(tiny_checkpoint: Path, change, message: str):
    change_run(tiny_checkpoint, change)
    with pytest.raises(ValueError, match=message) as caught:
        checkpoint.load(tiny_checkpoint, CONFIGS)
    assert "run.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"format": 1}'])
def test_run_file_that_is_no_object(tiny_checkpoint: Path, content: str):
    (tiny_checkpoint / "run.json").write_text(content)
    with pytest.raises(ValueError, match=r"run\.json"):
        checkpoint.load(tiny_checkpoint, CONFIGS)


@pytest.mark.parametrize("name", ["run.json", "weights.safetensors", "tokenizer.json"])
def test_missing_file(tiny_checkpoint: Path, name: str):
    (tiny_checkpoint / name).unlink()
    with pytest.raises(FileNotFoundError, match=f"is no checkpoint: it has no {name}"):
        checkpoint.load(tiny_checkpoint, CONFIGS)


def test_very_large_file_is_not_read(tiny_checkpoint: Path):
    with (tiny_checkpoint / "run.json").open("ab") as file:
        file.truncate(2**25)
    with pytest.raises(ValueError, match=r"run\.json is larger than"):
        checkpoint.load(tiny_checkpoint, CONFIGS)


def test_whole_numbers_are_rates_too(tmp_path: Path, tiny_tokenizer: Tokenizer):
    config = LayersConfig()
    checkpoint.save(tmp_path / "c", config.build(), config, tiny_tokenizer, RUN)
    change_run(tmp_path / "c", lambda run: run["config"].update(rate=2))
    checkpoint.load(tmp_path / "c", {"LayersConfig": LayersConfig})


def test_saving_again_replaces(tmp_path: Path, tiny_checkpoint: Path, tiny_tokenizer: Tokenizer):
    config = LayersConfig()
    checkpoint.save(tiny_checkpoint, config.build(), config, tiny_tokenizer, RUN)
    checkpoint.load(tiny_checkpoint, {"LayersConfig": LayersConfig})
    assert sorted(path.name for path in tmp_path.iterdir()) == [tiny_checkpoint.name]


def test_other_folders_are_not_replaced(tmp_path: Path, tiny_tokenizer: Tokenizer):
    (tmp_path / "photo.jpg").write_text("mine")
    config = LayersConfig()
    with pytest.raises(ValueError, match="exists and is no checkpoint"):
        checkpoint.save(tmp_path, config.build(), config, tiny_tokenizer, RUN)
    assert (tmp_path / "photo.jpg").read_text() == "mine"


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, tiny_tokenizer: Tokenizer):
    config = LayersConfig()
    method = config.build()
    with torch.no_grad():
        method.narrow.bias[0] = float("nan")
    with pytest.raises(ValueError, match=r"narrow\.bias are not finite"):
        checkpoint.save(tmp_path / "c", method, config, tiny_tokenizer, RUN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [SafetensorError("No space left on device"), OSError(errno.ENOSPC, "No space left on device")],
)
def test_full_disk_keeps_the_older_one(
    tiny_checkpoint: Path,
    tiny_tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
):
    def full(_tensors, path: Path):
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    config = LayersConfig()
    with pytest.raises(OSError, match=r"cannot write .*: No space left"):
        checkpoint.save(tiny_checkpoint, config.build(), config, tiny_tokenizer, RUN)
    checkpoint.load(tiny_checkpoint, CONFIGS)
    assert [path.name for path in tiny_checkpoint.parent.iterdir()] == [tiny_checkpoint.name]


def test_a_full_disk_is_said_in_one_line(
    tiny_checkpoint: Path, tiny_tokenizer: Tokenizer, largest_file
):
    """As the libraries meet it, each with an error of its own."""
    config = LayersConfig()
    with (
        largest_file(1000),
        pytest.raises(OSError, match=rf"^cannot write {tiny_checkpoint}: File too large$"),
    ):
        checkpoint.save(tiny_checkpoint, config.build(), config, tiny_tokenizer, RUN)
    checkpoint.load(tiny_checkpoint, CONFIGS)


def test_a_checkpoint_can_be_loaded_whenever_a_save_is_killed(
    tmp_path: Path, tiny_tokenizer: Tokenizer
):
    """The older one or the new one; and the next save leaves nothing else behind."""
    folder = tmp_path / "model"

    def save(value: float) -> None:
        config = LayersConfig()
        method = config.build()
        nn.init.constant_(method.narrow.bias, value)
        checkpoint.save(folder, method, config, tiny_tokenizer, RUN | {"name": f"{value:g}"})

    save(1)
    seen = []
    for _ in killed_at_each_step(lambda: save(2)):
        place = model_folder(folder)
        method, _, run, _ = checkpoint.load(place, {"LayersConfig": LayersConfig})
        assert isinstance(method, Layers)
        values = method.narrow.bias.tolist()
        assert values == [float(run["name"])] * 2
        seen += values
        save(1)
        assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert seen == sorted(seen) and set(seen) == {1, 2}


def test_a_link_to_a_checkpoint_stays_one(
    tmp_path: Path, tiny_checkpoint: Path, tiny_tokenizer: Tokenizer
):
    (tmp_path / "link").symlink_to(tiny_checkpoint)
    config = LayersConfig()
    checkpoint.save(tmp_path / "link", config.build(), config, tiny_tokenizer, RUN)
    assert (tmp_path / "link").is_symlink()
    checkpoint.load(tiny_checkpoint, {"LayersConfig": LayersConfig})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", tiny_checkpoint.name]


class Renamed(Layers):
    """The same layers, one of them under another name, and one more."""

    def __init__(self, width: int):
        super().__init__(width)
        self.part = nn.ModuleDict({"inner": self.wide, "widened": nn.Linear(5, 2)})
        del self.wide


def test_a_start_takes_weights_under_other_names(tmp_path: Path, tiny_tokenizer: Tokenizer):
    config, folder = LayersConfig(), tmp_path / "c"
    given = config.build()
    checkpoint.save(folder, given, config, tiny_tokenizer, RUN)
    method = Renamed(config.width)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    fresh = checkpoint.start_from(folder, method, {"wide": "part.inner"})
    assert fresh == ["part.widened.bias", "part.widened.weight"]
    assert torch.equal(method.part["inner"].weight, given.wide.weight)
    assert torch.equal(method.convolution.weight, given.convolution.weight)
    assert torch.equal(method.part["widened"].weight, before["part.widened.weight"])


@pytest.mark.parametrize("renamed", [{}, {"wid": "part.inn"}, {"wide": "part.outer"}])
def test_a_start_has_a_place_for_every_weight(
    tmp_path: Path, tiny_tokenizer: Tokenizer, renamed: dict[str, str]
):
    """Whole parts of names are renamed: `wide.weight` does not lie below `wid`."""
    config, folder = LayersConfig(), tmp_path / "c"
    checkpoint.save(folder, config.build(), config, tiny_tokenizer, RUN)
    with pytest.raises(ValueError, match=r"left over: wide\.bias, wide\.weight$"):
        checkpoint.start_from(folder, Renamed(config.width), renamed)


def test_a_start_of_another_shape_is_refused(tmp_path: Path, tiny_tokenizer: Tokenizer):
    config, folder = LayersConfig(), tmp_path / "c"
    checkpoint.save(folder, config.build(), config, tiny_tokenizer, RUN, "int8")
    with pytest.raises(
        ValueError, match=r"tensor wide\.bias is \(50,\) where the method has \(2,\)"
    ):
        checkpoint.start_from(folder, Renamed(config.width), {"wide": "part.widened"})
    with pytest.raises(FileNotFoundError, match="is no checkpoint"):
        checkpoint.start_from(tmp_path, Renamed(config.width))


def test_a_start_leaves_parts_out(tmp_path: Path, tiny_tokenizer: Tokenizer):
    """Also in 8 bits, where a part has its scales beside it.

    What is left out may have any shape or place.
    """
    config, folder = LayersConfig(), tmp_path / "c"
    given = config.build()
    checkpoint.save(folder, given, config, tiny_tokenizer, RUN, "int8")
    method = Renamed(config.width)
    before = {name: value.clone() for name, value in method.state_dict().items()}
    fresh = checkpoint.start_from(folder, method, without=("wide", "convolution.weight"))
    assert {"convolution.weight", "part.inner.weight", "part.inner.bias"} <= set(fresh)
    assert "narrow.weight" not in fresh and torch.equal(method.narrow.weight, given.narrow.weight)
    for name in fresh:
        assert torch.equal(method.state_dict()[name], before[name]), name


def test_parts_that_are_left_out_are_whole(tmp_path: Path, tiny_tokenizer: Tokenizer):
    """`wide.weight` does not lie below `wid`, and the names are those of the checkpoint."""
    config, folder = LayersConfig(), tmp_path / "c"
    checkpoint.save(folder, config.build(), config, tiny_tokenizer, RUN)
    for without in ("wid", "part.inner"):
        with pytest.raises(ValueError, match=r"left over: wide\.bias, wide\.weight$"):
            checkpoint.start_from(folder, Renamed(config.width), without=(without,))
