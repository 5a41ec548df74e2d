"""Image-caption pairs in WebDataset shards: tar files of `KEY.jpg` with `KEY.txt` or `KEY.json`, on disk or by URL."""

from __future__ import annotations

import contextlib
import glob
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from maskfree.data.examples import PHOTO_SUFFIXES, Example

NO_CAPTION = "no caption"
_TIMEOUT_SECONDS = 60


def find_shards(patterns: Sequence[str]) -> tuple[str, ...]:
    """Expand PATTERNS to shards: files, folders of `*.tar`, globs, braces as in `train-{000..005}.tar`, http(s) URLs.

    Raises:
        FileNotFoundError: a pattern matches no file.
        ValueError: a shard is empty, or a URL has another scheme (WebDataset's `pipe:` would run a shell command).
    """
    from braceexpand import braceexpand  # comes with webdataset

    shards: list[str] = []
    for pattern in patterns:
        for name in braceexpand(pattern):
            scheme = re.match(r"([a-zA-Z][a-zA-Z0-9+.-]*):", name)
            if scheme is None:
                shards.extend(_local_shards(name))
            elif scheme[1] == "file":
                shards.extend(_local_shards(name.removeprefix("file://").removeprefix("file:")))
            elif scheme[1] in ("http", "https"):
                shards.append(name)
            else:
                raise ValueError(f"shard {name!r}: {scheme[1]}: is not allowed; give a path or a http(s) URL")
    return tuple(shards)


def _local_shards(name: str) -> list[str]:
    path = Path(name).expanduser()
    found = sorted(path.glob("*.tar")) if path.is_dir() else [Path(p) for p in sorted(glob.glob(str(path)))]  # noqa: PTH207 - absolute patterns
    if not found:
        raise FileNotFoundError(f"no shard {name!r}" + (": the folder holds no .tar file" if path.is_dir() else ""))
    for shard in found:
        if not shard.stat().st_size:
            raise ValueError(f"shard {str(shard)!r} is empty")
    return [str(shard) for shard in found]


def read_shards(shards: Sequence[str]) -> Iterator[Example]:
    """Read every pair in order; what cannot be read comes out as an example with a problem, and reading goes on."""
    from webdataset.tariterators import group_by_keys, tar_file_expander

    for shard in shards:
        broken: list[Example] = []

        def note(error: Exception, shard: str = shard, broken: list[Example] = broken) -> bool:
            # WebDataset appends to the arguments, which an OSError does not show, and others would.
            reason = str(error.args[0]) if error.args and not isinstance(error, OSError) else str(error)
            broken.append(Example("", shard, problem=f"{type(error).__name__}: {' '.join(reason.split())}"))
            return True

        try:
            with _open(shard) as stream:
                files = tar_file_expander([{"url": shard, "stream": stream}], handler=note)
                yield from (_example(shard, fields) for fields in group_by_keys(files, handler=note))
        except OSError as error:
            note(error)
        yield from broken


def _open(shard: str) -> contextlib.AbstractContextManager[IO[bytes]]:
    if shard.startswith(("http://", "https://")):
        return urllib.request.urlopen(shard, timeout=_TIMEOUT_SECONDS)
    return Path(shard).open("rb")


def _example(shard: str, fields: Mapping[str, Any]) -> Example:
    key = fields["__key__"]
    photo = next((fields[suffix] for suffix in PHOTO_SUFFIXES if suffix in fields), None)
    if photo is None:
        return Example(key, shard, problem=f"no photo ({', '.join(PHOTO_SUFFIXES)})")
    try:
        captions = captions_of(fields)
    except (ValueError, TypeError) as error:  # not JSON, not UTF-8, or JSON of another shape
        return Example(key, shard, problem=f"unreadable captions: {error}")
    if not captions:
        return Example(key, shard, photo, problem=NO_CAPTION)
    return Example(key, shard, photo, captions)


def captions_of(fields: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the captions of `json` ("captions" or "caption"), else the text of `txt`; blank ones are left out.

    Raises:
        ValueError, TypeError: they are not JSON, not UTF-8, or JSON of another shape.
    """
    texts: list[str] = []
    record = json.loads(fields["json"]) if "json" in fields else None
    if isinstance(record, dict) and record.get("captions"):
        texts = list(record["captions"])
    elif isinstance(record, dict) and record.get("caption"):
        texts = [record["caption"]]
    elif "txt" in fields:
        texts = [fields["txt"].decode()]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("a caption is not a string")
    return tuple(line for line in (" ".join(text.split()) for text in texts) if line)
