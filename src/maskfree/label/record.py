"""The record of a labeled data set: what its labels depend on, in label.json."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

from maskfree.files.atomic import read_json, replace_text
from maskfree.label.config import LabelConfig
from maskfree.label.labeled import LabelClass
from maskfree.label.words_file import WordList
from maskfree.run_dir import differences
from maskfree.text.background import Background

RECORD = "label.json"
"""File of the record, in the folder of the data set."""


def asked_record(
    words: WordList,
    classes: Sequence[LabelClass],
    background: Background,
    config: LabelConfig,
    options: dict[str, Any],
) -> dict[str, Any]:
    """What was asked for, which is known before the model is loaded.

    Args:
        words: The class names.
        classes: Their ids and colors.
        background: The background rule.
        config: Further settings of the labels.
        options: Options of the model, by name.

    Returns:
        Plain values by name.
    """
    return {
        "words": [list(synonyms) for synonyms in words.vocabulary.classes],
        "words_sha256": words.sha256,
        **asdict(config),
        "background": str(background),
        **options,
        "classes": {each.name: {"id": each.id, "color": list(each.color)} for each in classes},
    }


def read_record(folder: Path) -> dict[str, Any] | None:
    """Read the record of a data set.

    Args:
        folder: Folder of the data set.

    Returns:
        Its content, with what was "asked" and how it was "made"; None if there is none.

    Raises:
        ValueError: It is damaged.
        OSError: It cannot be read.
    """
    path = folder / RECORD
    if not path.exists():
        return None

    record = read_json(path)
    parts = [record.get(part) for part in ("asked", "made")] if isinstance(record, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise ValueError(f"{path} is no record of a labeled data set: give another folder")
    return record


def write_record(folder: Path, asked: dict[str, Any], made: dict[str, Any]) -> None:
    """Write the record of a data set.

    Args:
        folder: Folder of the data set.
        asked: What was asked for.
        made: What it was made with.

    Raises:
        OSError: It cannot be written.
    """
    content = {"asked": asked, "made": made, "maskfree": version("maskfree")}
    replace_text(folder / RECORD, json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def refuse_change(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    """Refuse to go on where a setting has changed.

    Args:
        folder: Folder of the data set.
        before: Values of the record.
        now: Values of this run.

    Raises:
        ValueError: A value differs.
    """
    # Through JSON, which turns tuples into lists, as in the file.
    changed = differences(before, json.loads(json.dumps(now)))
    # What follows from others is not named beside them.
    own = [name for name in changed if not name.startswith(("words_", "classes."))]
    changed = own or changed
    if changed:
        raise ValueError(
            f"{folder} was begun with another {', '.join(changed)}: give another --out, or --redo "
            "to label its photos anew"
        )


def settings_hash(asked: dict[str, Any], made: dict[str, Any]) -> str:
    """Hash of everything that labels depend on.

    Args:
        asked: What was asked for.
        made: What it was made with.

    Returns:
        64 hexadecimal digits.
    """
    text = json.dumps([asked, made], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def classes_of(record: dict[str, Any]) -> tuple[LabelClass, ...]:
    """Classes of a data set, as they were asked for.

    Args:
        record: What `read_record` returned.

    Returns:
        The classes in their order; the background, if any, comes last.

    Raises:
        ValueError: The record is damaged.
    """
    asked = record["asked"]
    try:
        synonyms = [*map(tuple, asked["words"]), ()]
        made = []
        for (name, about), words in zip(asked["classes"].items(), synonyms, strict=False):
            red, green, blue = about["color"]
            made.append(LabelClass(about["id"], name, words, (red, green, blue)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{RECORD} is damaged: {error!r}") from error
    return tuple(made)
