"""Enter the photos of a run into the manifest, and find out which of them are to be labeled."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any

from maskfree.label.manifest import Manifest
from maskfree.label.opening import file_sha256, open_row, state_of
from maskfree.label.photo_row import DONE, FAILED, WAITING, PhotoRow
from maskfree.label.store import Store
from maskfree.label.work_list import FoundPhoto

# Photos that are entered in one transaction.
_AT_ONCE = 500


def list_photos(
    found: Iterable[FoundPhoto], manifest: Manifest, store: Store, settings: str, redo: bool
) -> int:
    """Enter photos into the manifest; those that are new or changed wait to be labeled.

    A photo is unchanged if its label map is there, made with the same settings, and if its size and
    time of change, or else its content, are the same. One that could not be read before waits only
    if it can be read now.

    Args:
        found: The photos.
        manifest: Manifest of the data set.
        store: Its label maps.
        settings: Hash of the settings.
        redo: Let all photos wait.

    Returns:
        Number of the run, under which they are entered.
    """
    run = manifest.next_run()
    photos = iter(found)
    while some := list(islice(photos, _AT_ONCE)):
        with manifest.together():
            for photo in some:
                _enter(photo, manifest, store, (run, settings, redo))
    return run


def _enter(
    found: FoundPhoto, manifest: Manifest, store: Store, about: tuple[int, str, bool]
) -> None:
    """Enter one photo; `about` is the run, the hash of its settings, and whether all is redone."""
    run, settings, redo = about
    row = manifest.row_of(found.source)
    is_new = row is None
    if row is None:
        row = manifest.add(found, run)

    size, modified_ns = state_of(found.path)
    if found.member and size is not None:
        size = found.size
    now: dict[str, Any] = {"bytes": size, "modified_ns": modified_ns, "offset": found.offset}

    if found.problem:
        now |= {"state": FAILED, "error": found.problem}
    elif is_new or redo or row.settings != settings:
        now["state"] = WAITING
    elif row.state == DONE:
        now["state"] = DONE if _is_unchanged(row, now, store) else WAITING
    elif row.state == FAILED:
        now |= _looked_at_again(row, now)
    manifest.change(row.id, run=run, **now)


def _is_unchanged(row: PhotoRow, now: dict[str, Any], store: Store) -> bool:
    """Whether a photo that was labeled is the same one, and its label map is there."""
    if not store.label_path(row.name).is_file():
        return False
    if row.member and not store.photo_path(row).is_file():
        return False

    if (now["bytes"], now["modified_ns"]) == (row.bytes, row.modified_ns):
        return True
    # A copied or touched file has another time, but the same content.
    if now["bytes"] is None or now["bytes"] != row.bytes:
        return False
    try:
        size = row.bytes if row.member else None
        return file_sha256(row.path, now["offset"], size) == row.sha256
    except OSError:
        return False


def _looked_at_again(row: PhotoRow, now: dict[str, Any]) -> dict[str, Any]:
    """State of a photo that could not be read before."""
    if (now["bytes"], now["modified_ns"]) == (row.bytes, row.modified_ns):
        # The reason may lie elsewhere, for example in a package that was missing.
        again = open_row(row)
        if again.problem:
            return {"state": FAILED, "error": again.problem}
    return {"state": WAITING}
