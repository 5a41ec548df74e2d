"""The search index: equal results without the network, changed photos, damage, its bound."""

from __future__ import annotations

import logging
import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from maskfree.files.user_cache import cache_folder
from maskfree.hub.loading import load
from maskfree.inference import search_index
from maskfree.inference.photo_segments import PhotoSegments
from maskfree.inference.search import photos_of, retrieve
from maskfree.inference.search_config import RetrievalConfig
from maskfree.inference.search_index import SearchIndex
from maskfree.inference.segmenter import Segmenter

CONFIG = RetrievalConfig(top=5, num_segments=4)


@pytest.fixture
def segmenter(tiny_checkpoint: Path) -> Segmenter:
    loaded = load(str(tiny_checkpoint))
    return loaded.with_inference(replace(loaded.inference, side_px=32))


@pytest.fixture
def photos(photo: Callable[..., Image.Image], tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(3):
        photo((50 + 9 * number, 40)).save(folder / f"{number}.png")
    return folder


def records(segmenter: Segmenter, photos: Path, index: bool = True, word: str = "dog") -> list:
    hits = retrieve(segmenter, word, photos_of([photos]), replace(CONFIG, index=index)).hits
    return [(hit.record(), hit.mask.tolist()) for hit in hits]


def count_networks(segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    runs: list[int] = []
    group = segmenter.method.group

    def counted(images: torch.Tensor):
        runs.append(len(images))
        return group(images)

    monkeypatch.setattr(segmenter.method, "group", counted)
    return runs


def index_file() -> Path:
    [file] = (cache_folder() / "search").iterdir()
    return file


def test_a_second_search_runs_no_network_and_finds_the_same(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    without = records(segmenter, photos, index=False)
    assert not (cache_folder() / "search").exists()
    assert records(segmenter, photos) == without

    runs = count_networks(segmenter, monkeypatch)
    assert records(segmenter, photos) == without
    records(segmenter, photos, word="cat")
    assert runs == []


def test_a_changed_photo_is_embedded_anew_and_a_moved_one_is_not(
    segmenter: Segmenter,
    photos: Path,
    photo: Callable[..., Image.Image],
    monkeypatch: pytest.MonkeyPatch,
):
    records(segmenter, photos)
    runs = count_networks(segmenter, monkeypatch)

    (photos / "0.png").rename(photos / "moved.png")
    shutil.copy(photos / "1.png", photos / "copy.png")
    records(segmenter, photos)
    assert runs == []

    photo((64, 48)).save(photos / "2.png")
    changed = records(segmenter, photos)
    assert runs == [1]
    assert changed == records(segmenter, photos, index=False)


def test_the_cache_can_be_off(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKFREE_CACHE", "off")
    assert records(segmenter, photos) == records(segmenter, photos)
    assert not (tmp_path / "off").exists()


def test_other_settings_have_another_index(segmenter: Segmenter, photos: Path):
    records(segmenter, photos)
    larger = segmenter.with_inference(replace(segmenter.inference, side_px=48))
    assert records(larger, photos) == records(larger, photos, index=False)
    assert len(list((cache_folder() / "search").iterdir())) == 2


def test_a_damaged_index_is_replaced(segmenter: Segmenter, photos: Path):
    expected = records(segmenter, photos)
    index_file().write_bytes(b"no index" * 1000)
    assert records(segmenter, photos) == expected
    assert records(segmenter, photos) == expected
    assert sqlite3.connect(index_file()).execute("SELECT count(*) FROM photos").fetchall() == [(3,)]


def test_a_folder_that_cannot_be_made_is_reported_once(
    segmenter: Segmenter, photos: Path, caplog: pytest.LogCaptureFixture
):
    cache_folder().mkdir(parents=True, exist_ok=True)
    (cache_folder() / "search").write_text("a file")
    with caplog.at_level(logging.WARNING):
        assert records(segmenter, photos) == records(segmenter, photos, index=False)
    assert [record.message.split(":")[0].split()[-1] for record in caplog.records] == ["used"]


def test_a_full_index_drops_what_was_added_first(
    segmenter: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(search_index, "_MAX_BYTES", 400_000)
    monkeypatch.setattr(search_index, "_WRITE_EVERY", 4)
    numbers = np.random.default_rng(0)
    paths = [tmp_path / f"{number}.bin" for number in range(100)]

    with SearchIndex(segmenter, CONFIG) as index:
        for path in paths:
            path.write_bytes(path.name.encode())
            assert index.find(path) is None
            values = numbers.normal(size=(36, 200)).astype(np.float16)
            ids = np.zeros((5, 7), np.int16)
            index.add(path, PhotoSegments(values, np.ones(36, np.float32), ids, (10, 14)))

    assert index_file().stat().st_size < 600_000
    with SearchIndex(segmenter, CONFIG) as index:
        assert index.find(paths[0]) is None
        last = index.find(paths[-1])
    assert last is not None and np.array_equal(last.embeddings, values)
    assert last.photo_size == (10, 14)


def test_indexes_of_other_models_leave_first(
    segmenter: Segmenter, photos: Path, monkeypatch: pytest.MonkeyPatch
):
    records(segmenter, photos)
    old = index_file()
    monkeypatch.setattr(search_index, "_MAX_BYTES", 10_000)
    other = replace(segmenter, weights_hash="1" * 64)
    records(other, photos)
    assert index_file() != old
