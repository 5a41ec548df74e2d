"""Captions a second on one core: finding an entity set's words, and all nouns, against textblob's
own pipeline.
"""

from __future__ import annotations

import io
import itertools
import json
import random
import statistics
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
import tyro
from nltk.tokenize import TreebankWordTokenizer
from textblob import Sentence, TextBlob
from textblob.en.taggers import PatternTagger
from textblob.exceptions import MissingCorpusError

from harness import RESULTS, Ratio, report
from maskfree.data.entities.caption_pairs import read_pairs
from maskfree.data.entities.preparation import Preparation
from maskfree.data.shards import find_shards
from maskfree.text import nouns as noun_finder
from maskfree.text.entities import EntitySet
from maskfree.text.taggers import Nouns

CORPUS = 12_000_000  # pairs of CC12M, with a caption each
CORES = 2
PHOTO_BYTES = 4_000
PAIRS = 10_000  # of a shard, as img2dataset writes them
OTHER_WORDS = (
    "a",
    "the",
    "two",
    "red",
    "runs",
    "sits",
    "with",
    "near",
    "on",
    "small",
    "field",
    "grass",
    "water",
)


def main(
    shards: tuple[str, ...] = ("../shared/data/flickr8k/train-{000..005}.tar",),
    captions: int = 30_000,
    slow_captions: int = 3_000,
    repeats: int = 3,
    results: Path = RESULTS,
) -> None:
    """Time what `maskfree prepare entities` does with a caption, and the whole of it on shards like
    CC12M's.

    Times are the processor's, so that other work on the machine does not count.

    Args:
        shards: Where captions come from; where these are absent, they are made of words.
        captions: Different captions, at most; none is met twice in a pass, and what is known of
            captions is forgotten.
        slow_captions: So many of them go through textblob's pipeline.
        repeats: Passes of each.
        results: Folder for the results file.
    """
    torch.set_num_threads(1)
    try:
        found = tuple(map(Path, find_shards(shards)))
    except FileNotFoundError:
        found = ()
    read = (
        caption
        for shard in found
        for pair in read_pairs(shard, Counter())
        for caption in pair.captions
    )
    texts = list(dict.fromkeys(itertools.islice(read if found else made_up(), captions)))
    few = texts[:slow_captions]
    finder = EntitySet.read("ovsegmentor")
    theirs, pipeline = textblob_pipeline()

    def nouns() -> None:
        noun_finder.nouns.cache_clear()
        each(noun_finder.nouns, texts)

    whole = "all of it: archive, JSON, words, Parquet"
    with tempfile.TemporaryDirectory() as folder:
        shard = write_shard(Path(folder) / "00000.tar", texts[:PAIRS])
        candidates: dict[str, tuple[Callable[[], object], int]] = {
            "words of the entity set": (partial(each, finder.mentions, texts), len(texts)),
            "nouns for choosing a set": (partial(each, Nouns(), texts), len(texts)),
            "nouns and lemmas of ViL-Seg": (nouns, len(texts)),
            theirs: (partial(each, pipeline, few), len(few)),
            whole: (partial(prepare, shard, finder), min(PAIRS, len(texts))),
        }
        seconds = median_processor_seconds(
            {name: run for name, (run, _) in candidates.items()}, repeats
        )
    speeds = {name: number / seconds[name] for name, (_, number) in candidates.items()}
    times = {name: CORPUS / CORES / speed for name, speed in speeds.items()}
    ratios = [
        Ratio(f"{n}: speed over textblob's", s / speeds[theirs])
        for n, s in speeds.items()
        if n != theirs
    ]
    ratios.append(Ratio(f"12 million captions on {CORES} cores", times[whole], "at most 600", "s"))
    rows = [
        {
            "candidate": name,
            "captions_per_second": round(speed),
            "minutes_for_cc12m": round(times[name] / 60, 1),
        }
        for name, speed in speeds.items()
    ]
    settings = {
        "shards": shards if found else "made up",
        "captions": len(texts),
        "slow_captions": len(few),
    }
    per_thousand = {f"{name}, 1000 captions": 1000 / speed for name, speed in speeds.items()}
    report("entities", per_thousand, ratios, settings, results, rows)


def median_processor_seconds(
    candidates: Mapping[str, Callable[[], object]], repeats: int
) -> dict[str, float]:
    """Run the candidates in turn, REPEATS rounds after one to warm up.

    Return each one's median processor time.
    """
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(1 + repeats):
        for name, run in candidates.items():
            start = time.process_time()
            run()
            taken[name].append(time.process_time() - start)
    return {name: statistics.median(times[1:]) for name, times in taken.items()}


def each(work: Callable[[str], object], texts: Sequence[str]) -> None:
    for text in texts:
        work(text)


def textblob_pipeline() -> tuple[str, Callable[[str], object]]:
    """Name and function of textblob's own way to words and parts of speech, with its lexicon
    tagger.

    Its tokenizer of words splits sentences first, for which NLTK's model must have been downloaded;
    without it, a caption is one sentence, cut by the tokenizer of the same library that needs none.
    """
    tagger, cutter = PatternTagger(), TreebankWordTokenizer()

    def whole(caption: str) -> object:
        blob = TextBlob(caption, pos_tagger=tagger)
        return blob.words, blob.tags

    def single(caption: str) -> object:
        sentence = Sentence(caption, tokenizer=cutter, pos_tagger=tagger)
        return sentence.tokens, sentence.tags

    try:
        whole("a dog")
    except MissingCorpusError:
        return "textblob's Sentence(caption), .tokens and .tags", single
    return "TextBlob(caption), .words and .tags", whole


def write_shard(path: Path, captions: Sequence[str]) -> Path:
    """Write a shard as img2dataset does: three files a pair, each with a record of its time of its
    own.
    """
    with tarfile.open(path, "w") as tar:
        for number, caption in enumerate(captions):
            key = f"{number:09d}"
            record = {
                "caption": caption,
                "url": f"https://example.org/{key}.jpg",
                "key": key,
                "status": "success",
            }
            record |= {
                "error_message": None,
                "width": 256,
                "height": 256,
                "exif": "{}",
                "sha256": "0" * 64,
            }
            contents = {
                "jpg": bytes(PHOTO_BYTES),
                "txt": caption.encode(),
                "json": json.dumps(record).encode(),
            }
            for suffix, content in contents.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size, info.mtime = len(content), 1.7e9 + number / 7
                tar.addfile(info, io.BytesIO(content))
    return path


def prepare(shard: Path, finder: EntitySet) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Preparation((shard,), Path(folder) / "index", workers=1)
        work.start({}, resume=False)
        work.find(finder, lambda units, name, number: units)
        work.finish(finder, {})


def made_up(seed: int = 0) -> Iterator[str]:
    """Captions of the entity set's words and some others, without end."""
    rng = random.Random(seed)
    words = (*EntitySet.read("ovsegmentor").words, *OTHER_WORDS)
    while True:
        yield " ".join(rng.choices(words, k=11))


if __name__ == "__main__":
    tyro.cli(main)
