"""Folders of photos without captions, and how an example is decoded."""

import io

import pytest
from PIL import Image
from shard_files import jpeg

from maskfree.data.examples import Example, decode
from maskfree.data.photo_folders import find_photos, read_photos


def test_photos_are_found_at_any_depth_by_suffix(tmp_path, caplog):
    photos = (
        "A.JPG",
        "a/c.JPEG",
        "a/d/e.png",
        "a/f.webp",
        "b.tif",
        "c.TIFF",
        "d.gif",
        "e.avif",
        "f.jfif",
        "g.bmp",
    )
    others = (".cache/h.jpg", "._A.JPG", "Thumbs.db", "a/notes.txt")
    for name in (*photos, *others):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg())
    found = find_photos([str(tmp_path)])
    assert [p.removeprefix(f"{tmp_path}/") for p in found] == list(photos)
    assert (
        f"{tmp_path}: 4 of 14 files are no photos and are left out (._A.JPG, h.jpg, Thumbs.db, ...)"
        in caplog.text
    )
    examples = list(read_photos(found, [str(tmp_path)]))
    assert {e.captions for e in examples} == {()}
    assert decode(examples[0], 0).size == (40, 30)


def test_keys_do_not_depend_on_where_the_folder_lies(tmp_path, monkeypatch):
    for folder in ("here/photos", "there/photos", "there/more"):
        (tmp_path / folder / "deep").mkdir(parents=True)
        (tmp_path / folder / "deep" / "1.jpg").write_bytes(jpeg())
    monkeypatch.chdir(tmp_path)

    def keys(*folders):
        return [example.key for example in read_photos(find_photos(folders), folders)]

    assert (
        keys(str(tmp_path / "here/photos"))
        == keys("there/photos/")
        == keys("here/../there/photos")
        == ["deep/1.jpg"]
    )
    assert keys("there/photos", "there/more") == ["0/deep/1.jpg", "1/deep/1.jpg"]


def test_folder_without_photos_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds no photo"):
        find_photos([str(tmp_path)])
    with pytest.raises(FileNotFoundError, match="no folder"):
        find_photos([str(tmp_path / "none")])


@pytest.mark.parametrize(
    ("size", "decode_px", "expected"),
    [
        ((1600, 1200), 0, (1600, 1200)),
        ((1600, 1200), 512, (800, 600)),
        ((1600, 1200), 150, (200, 150)),
        ((60, 50), 512, (60, 50)),
    ],
)
def test_large_jpegs_are_decoded_small_but_not_too_small(size, decode_px, expected):
    assert decode(Example("k", "s", jpeg(size=size)), decode_px).size == expected


def test_decoding_gives_upright_rgb():
    encoded = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("L", (30, 20), 7).save(encoded, "JPEG", exif=exif)
    photo = decode(Example("k", "s", encoded.getvalue()), 512)
    assert (photo.mode, photo.size) == ("RGB", (20, 30))


def test_postscript_in_a_shard_is_not_run():
    with pytest.raises(ValueError, match="PostScript"):
        decode(
            Example("k", "s", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"), 512
        )


@pytest.mark.parametrize("content", [b"", b"no photo", jpeg()[:300]])
def test_broken_photos_raise(content):
    with pytest.raises((ValueError, OSError)):
        decode(Example("k", "s", content), 512)


def test_problem_of_the_source_is_raised():
    with pytest.raises(ValueError, match="no caption"):
        decode(Example("k", "s", jpeg(), problem="no caption"), 512)
