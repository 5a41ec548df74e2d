"""The `maskfree prepare entities` command: an index of image-caption pairs by their nouns."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from rich.console import Console
from tyro.conf import OmitArgPrefixes, Positional

from maskfree.progress import Progress, Watch

if TYPE_CHECKING:
    from maskfree.data.entities.preparation import Preparation
    from maskfree.data.entities.shard_parts import Finder
    from maskfree.text.entities import EntitySet

# Counts of problems, in the order in which they are printed.
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
# Number of entities that the summary lists.
_SHOWN = 30


@dataclass(frozen=True)
class Choice:
    """Selection of the nouns that are entities."""

    entities: str = "ovsegmentor"
    """ovsegmentor: the 100 words of the paper; auto: the most frequent nouns of the captions; or a
    file with `word: entity` lines."""
    match: Literal["forms", "exact"] = "forms"
    """forms: words in any case, number and spelling; exact: only as the list writes them, as the
    authors of OVSegmentor filter CC12M."""
    max_entities: int = 100
    """For auto: largest number of entities."""
    min_pairs: int = 10
    """For auto: smallest number of pairs in which an entity occurs."""
    tagger: Literal["textblob", "nltk", "spacy"] = "textblob"
    """For auto: tagger that finds nouns; nltk and spacy are installed separately, with a model."""


def entities(
    shards: Positional[tuple[str, ...]],
    out: Path,
    choice: Annotated[Choice, OmitArgPrefixes] = Choice(),
    workers: int = 2,
    resume: bool = False,
    quiet: bool = False,
) -> int:
    """Index image-caption pairs by the entities (nouns) in their captions.

    Pairs without an entity are left out. The shards are not changed, and their photos are not read.
    The output folder gets a table of the pairs (pairs.parquet), the list of entities, and what
    training needs to find pairs that share an entity.

    Args:
        shards: WebDataset shards on disk: files, folders, globs, or brace expressions such as
            train-{000..005}.tar.
        out: Output folder of the index, which must not exist.
        choice: Selection of the entities.
        workers: Number of processes; each reads one shard at a time.
        resume: Resume a run that was interrupted; for a finished run nothing is done.
        quiet: Do not show progress.

    Returns:
        Exit status 0.
    """
    from maskfree import run_dir
    from maskfree.data.entities import preparation
    from maskfree.data.remote_files import is_remote
    from maskfree.data.shards import find_shards

    # Check packages and arguments first.
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
        if is_remote(name):
            raise ValueError(
                f"shard {name!r} is at a URL: an index is made of files on disk; training then "
                "also takes it with their URLs"
            )

    console = Console(highlight=False, markup=False, soft_wrap=True)
    if resume and (summary := preparation.finished(out)):
        console.print(f"{out} is finished")
        _print_summary(summary, console)
        return 0

    work = preparation.Preparation(tuple(Path(name) for name in found), out, workers)
    settings, chosen = _settings(choice)
    if chosen is not None:
        # A list that cannot be matched is refused before anything is written.
        _finder(chosen, choice)
    work.start(settings, resume)

    # The lock keeps a second process from working on the same unfinished index.
    watch = Progress(quiet)
    with run_dir.held(work.unfinished):
        chosen = chosen or _choose(work, choice, watch)
        finder = _finder(chosen, choice)
        work.find(finder, watch)
        _print_summary(work.finish(finder, settings), console)

    _print_unknown(chosen, console)
    return 0


def _settings(choice: Choice) -> tuple[dict[str, Any], EntitySet | None]:
    """Settings to record, and the list of entities; None if it is chosen from the captions."""
    from maskfree.data.entities.caption_pairs import MAX_WORDS
    from maskfree.text.entities import EntitySet
    from maskfree.text.selection import check
    from maskfree.text.taggers import Nouns

    settings: dict[str, Any]
    chosen = None
    if choice.entities == "auto":
        check(choice.max_entities, choice.min_pairs)
        # A trial run reports a missing package before anything is written.
        Nouns(choice.tagger)("a dog")
        settings = {
            "max_entities": choice.max_entities,
            "min_pairs": choice.min_pairs,
            "tagger": choice.tagger,
        }
    else:
        chosen = EntitySet.read(choice.entities)
        settings = {"list": chosen.lines.splitlines()}

    # Indexes of earlier versions name no match.
    if choice.match != "forms":
        settings["match"] = choice.match

    return {"entities": Path(choice.entities).name, "max_words": MAX_WORDS} | settings, chosen


def _finder(chosen: EntitySet, choice: Choice) -> Finder:
    """What finds the entities in captions."""
    from maskfree.text.exact_words import ExactWords

    if choice.match == "exact":
        return ExactWords(chosen)
    return chosen


def _choose(work: Preparation, choice: Choice, watch: Watch) -> EntitySet:
    """Select the most frequent nouns of the captions."""
    from maskfree.text.selection import select
    from maskfree.text.taggers import Nouns

    return select(
        *work.count_nouns(Nouns(choice.tagger), watch), choice.max_entities, choice.min_pairs
    )


def _print_summary(summary: dict[str, Any], console: Console) -> None:
    """Print the counts of pairs and entities."""
    counts, found = summary["counts"], summary["entities"]

    console.print(
        f"{counts['read']} pairs read, {counts['kept']} kept, of {len(summary['shards'])} shards"
    )
    for reason in _SKIPPED:
        if counts[reason]:
            console.print(f"  {reason}: {counts[reason]}")

    # Most frequent first, equal ones in alphabetical order.
    ranked = sorted(
        ((number, name) for name, number in found.items() if number),
        key=lambda item: (-item[0], item[1]),
    )
    shown = ", ".join(f"{name} {number}" for number, name in ranked[:_SHOWN])
    console.print(f"{len(ranked)} of {len(found)} entities occur, in so many pairs: {shown}")

    # Entities that no or only one pair has are of no use: training needs pairs that share one.
    for label, number in (
        ("never occur", 0),
        ("occur in one pair, which has no partner by them", 1),
    ):
        if names := [name for name, count in found.items() if count == number]:
            console.print(f"  {label}: {', '.join(names)}")


def _print_unknown(chosen: EntitySet, console: Console) -> None:
    """Print the words of the list that the lexicon does not know."""
    from maskfree.text.lexicon import is_known

    if unknown := [word for word in chosen.words if not is_known(word)]:
        console.print(f"  not in the lexicon, taken as they are: {', '.join(unknown)}")
