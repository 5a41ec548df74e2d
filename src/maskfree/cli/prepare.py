"""`maskfree prepare`: what training needs beside the shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro
from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.progress import Progress, Watch

if TYPE_CHECKING:
    from maskfree.data.entities.preparation import Preparation
    from maskfree.text.entities import EntitySet

WHAT = ("entities", "segments", "teacher", "prototypes")
_SKIPPED = (
    "no photo",
    "dotted name",
    "unreadable name",
    "empty photo",
    "no caption",
    "unreadable captions",
    "no entity",
    "repeated key",
    "broken shard",
    "captions cut",
)
_SHOWN = 30  # entities in the printed table


@dataclass(frozen=True)
class Choice:
    """Which words are entities."""

    entities: str = "ovsegmentor"
    """ovsegmentor: the paper's 100 words; auto: the most frequent nouns of the captions; or a file with `word: entity`
    lines."""
    most: int = 100
    """For auto: so many entities at most."""
    least: int = 10
    """For auto: an entity occurs in so many pairs at least."""
    tagger: Literal["textblob", "nltk", "spacy"] = "textblob"
    """For auto: what finds the nouns; nltk and spacy, with a model, are installed apart."""


def prepare(what: Positional[str]) -> int:
    """Make what training needs beside the photos; `maskfree prepare entities --help` lists the settings of one of them.

    Args:
        what: entities, an index of image-caption pairs by the things that their captions name; segments, the regions
            of photos without labels; teacher, what a model sees in photos; prototypes, its idea of each word.
    """
    return prepare_what([what])


def prepare_what(arguments: Sequence[str]) -> int:
    """Parse what follows `prepare`: the options depend on it."""
    if not arguments or arguments[0] not in WHAT:
        raise ValueError(
            f"say what to prepare: {', '.join(WHAT)}"
            + (f"; not {arguments[0]!r}" if arguments else "")
        )
    return tyro.cli(
        _command(arguments[0]), prog=f"maskfree prepare {arguments[0]}", args=list(arguments[1:])
    )


def _command(what: str) -> Callable[..., int]:
    """Import WHAT is asked for only, so that help is quick."""
    if what == "segments":
        from maskfree.cli.prepare_segments import segments

        return segments
    if what == "entities":
        return entities
    from maskfree.cli.prepare_teacher import prototypes, teacher

    return teacher if what == "teacher" else prototypes


def entities(
    shards: Positional[tuple[str, ...]],
    out: Path,
    choice: Annotated[Choice, OmitArgPrefixes] = Choice(),
    workers: int = 2,
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Make an index of the pairs of SHARDS by the entities that their captions name; others are left out.

    The shards are read, but not their photos, and stay as they are. OUT gets a table of the pairs (pairs.parquet), the
    list of entities and what training needs to find pairs that share one.

    Args:
        shards: WebDataset shards on disk: files, folders, globs, braces as in train-{000..005}.tar.
        out: Folder of the index, which must not exist.
        choice: Which words are entities.
        workers: Processes; each reads one shard at a time.
        resume: Go on with a run that was stopped; of one that ended nothing is left to do.
        quiet: Do not show how far it has come.
    """
    from maskfree import run_dir
    from maskfree.data.entities import preparation
    from maskfree.data.shards import find_shards

    if missing := [
        name
        for name in ("pyarrow", "textblob", "lemminflect", "braceexpand")
        if not find_spec(name)
    ]:
        raise ValueError(
            f"an index of entities needs {', '.join(missing)}: pip install 'maskfree[entities]'"
        )
    if not shards:
        raise ValueError("no shards were given: give files, folders or globs")
    if workers < 1:
        raise ValueError(f"--workers {workers}: at least 1 process is needed")
    found = find_shards(shards)
    for name in found:
        if name.startswith(("http://", "https://")):
            raise ValueError(
                f"shard {name!r} is at a URL: an index is made of files on disk, whose photos it finds again"
            )
    console = Console(highlight=False, markup=False, soft_wrap=True)
    if resume and (summary := preparation.finished(out)):
        console.print(f"{out} is finished")
        _tell(summary, console)
        return 0
    work = preparation.Preparation(tuple(Path(name) for name in found), out, workers)
    settings, chosen = _settings(choice)
    work.start(settings, resume)
    watch = Progress(quiet)
    with run_dir.held(work.unfinished):
        chosen = chosen or _choose(work, choice, watch)
        work.find(chosen, watch)
        _tell(work.finish(chosen, settings), console)
    _tell_unknown(chosen, console)
    return 0


def _settings(choice: Choice) -> tuple[dict[str, Any], EntitySet | None]:
    """What the result depends on, to be recorded, and the list of entities, if it is not to be chosen."""
    from maskfree.data.entities.caption_pairs import MAX_WORDS
    from maskfree.text.entities import EntitySet
    from maskfree.text.selection import check
    from maskfree.text.taggers import Nouns

    if choice.entities == "auto":
        check(choice.most, choice.least)
        Nouns(choice.tagger)("a dog")  # a missing package is said before anything is made
        chosen, settings = (
            None,
            {"most": choice.most, "least": choice.least, "tagger": choice.tagger},
        )
    else:
        chosen = EntitySet.read(choice.entities)
        settings = {"list": chosen.lines.splitlines()}
    return {"entities": Path(choice.entities).name, "max_words": MAX_WORDS} | settings, chosen


def _choose(work: Preparation, choice: Choice, watch: Watch) -> EntitySet:
    from maskfree.text.selection import select
    from maskfree.text.taggers import Nouns

    return select(*work.count_nouns(Nouns(choice.tagger), watch), choice.most, choice.least)


def _tell(summary: dict[str, Any], console: Console) -> None:
    counts, found = summary["counts"], summary["entities"]
    console.print(
        f"{counts['read']} pairs read, {counts['kept']} kept, of {len(summary['shards'])} shards"
    )
    for reason in _SKIPPED:
        if counts[reason]:
            console.print(f"  {reason}: {counts[reason]}")
    ranked = sorted(
        ((number, name) for name, number in found.items() if number),
        key=lambda item: (-item[0], item[1]),
    )
    shown = ", ".join(f"{name} {number}" for number, name in ranked[:_SHOWN])
    console.print(f"{len(ranked)} of {len(found)} entities occur, in so many pairs: {shown}")
    for label, number in (
        ("never occur", 0),
        ("occur in one pair, which has no partner by them", 1),
    ):
        if names := [name for name, count in found.items() if count == number]:
            console.print(f"  {label}: {', '.join(names)}")


def _tell_unknown(chosen: EntitySet, console: Console) -> None:
    from maskfree.text.lexicon import is_known

    if unknown := [word for word in chosen.words if not is_known(word)]:
        console.print(f"  not in the lexicon, taken as they are: {', '.join(unknown)}")
