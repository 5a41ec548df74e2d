"""The commands `maskfree segment` and `maskfree models`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional

from maskfree.cli.common import (
    BAD_INPUT,
    Runtime,
    chosen_grouping,
    complain,
    keep_freed_memory,
    note,
    note_few_words,
)
from maskfree.progress import Progress


def segment(  # noqa: PLR0913 - one for each option
    photos: Positional[tuple[Path, ...]] = (),
    words: tuple[str, ...] = (),
    model: str = "pocket",
    out: Path = Path("maskfree-out"),
    background: str = "",
    templates: str = "",
    scores: bool = False,
    runtime: Annotated[Runtime, OmitArgPrefixes] = Runtime(),  # noqa: B008 - frozen
    quiet: bool = False,
) -> int:
    """Segment photos: label every pixel with one of the given words.

    Each photo gets a label map (an index PNG), an overlay and a JSON file.

    Args:
        photos: Photos of any size and color mode.
        words: Class names, separated by commas or spaces; "/" separates synonyms (sofa/couch).
        model: Name of `maskfree models`, METHOD:SOURCE, Hugging Face name, or folder.
        out: Output folder for the results; created if it does not exist.
        background: Background rule: none, scene (pixels labeled with a word for the scene, such as
            sky or wall, that means none of the classes), auto (the same with 133 everyday words),
            words:wall,sky (pixels labeled with one of these additional words) or threshold:T
            (pixels whose largest cosine is below T). By default scene for one or two words, else
            none.
        templates: Prompt templates: plain, photo or ensemble; the model's own if empty.
        scores: Also write NAME.scores.npz, the score of each class on each patch, for numpy.load.
        runtime: Device, batch size, input resolution and upsampling.
        quiet: Print neither the results of photos nor progress, only errors.

    Returns:
        Exit status: 0, or 2 if a photo could not be segmented.
    """
    from maskfree.text.background import Background, default_rule
    from maskfree.text.vocabulary import Vocabulary

    # Check the arguments before importing torch, which takes seconds.
    if not photos:
        raise ValueError("no photos were given: they come first, before --words")
    rule = background or default_rule(len(Vocabulary.parse(words).classes))
    Background.parse(rule)
    grouping = chosen_grouping(runtime.grouping, runtime.regions)
    chosen = runtime.chosen_runtime()
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(f"the output {out} is a file: --out is a folder")

    stems = _plan_stems(photos, out, scores)

    keep_freed_memory()
    runtime.apply()
    from maskfree.hub import loading
    from maskfree.inference.photos import PhotoError

    loaded = loading.load(model, runtime.device)
    inference = loaded.inference.changed(
        side_px=runtime.side_px,
        batch_size=runtime.batch_size,
        refine=runtime.refine,
        grouping=grouping,
    )
    # Without a rule, the segmenter knows that nobody asked for its default.
    segmenter = (
        loaded.with_inference(inference)
        .with_words(words, background or None, templates or None)
        .with_runtime(chosen)
    )
    if not segmenter.background.chosen and not quiet:
        note_few_words(segmenter.background)
    results = Progress(quiet)(segmenter.segment_many(photos), total=len(photos))

    # One bad photo does not stop the others.
    num_bad = 0
    for photo, stem, result in zip(photos, stems, results, strict=True):
        if isinstance(result, PhotoError):
            complain(result.reason)
            num_bad += 1
            continue

        # A photo whose results cannot be saved counts as failed; the others are still done.
        try:
            files = result.save(out, stem, scores)
        except (OSError, ValueError) as error:
            complain(f"{photo}: {error}")
            num_bad += 1
            continue

        largest_first = sorted(result.areas().items(), key=lambda item: -item[1])
        areas = ", ".join(f"{name} {area:.1%}" for name, area in largest_first if area > 0)
        if not quiet:
            # Not through another rich console, which would overwrite the progress bar.
            sys.stdout.write(f"{photo}: {areas} -> {', '.join(map(str, files))}\n")

    return BAD_INPUT if num_bad else 0


def _plan_stems(photos: Sequence[Path], out: Path, scores: bool = False) -> list[str]:
    """File stems of the results with which no photo, result or file of others is overwritten."""
    from maskfree.files.leftovers import remove_leftovers
    from maskfree.files.outputs import RESULT_SUFFIXES, SCORES_SUFFIX, Outputs

    remove_leftovers(out)
    suffixes = RESULT_SUFFIXES
    if scores:
        suffixes = (*suffixes, SCORES_SUFFIX)

    # Numbered stems avoid the stems of the other photos, in any letter case.
    outputs = Outputs(photos)
    wanted = [photo.stem for photo in photos]
    own = {stem.casefold() for stem in wanted}
    stems = [outputs.add_stem(out, stem, suffixes, own) for stem in wanted]

    for photo, stem in zip(photos, stems, strict=True):
        if stem != photo.stem:
            note(
                f"{photo}: its results are named {stem}.*, since {out / photo.stem}.* would "
                "overwrite other files"
            )
    return stems
