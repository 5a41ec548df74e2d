"""Photos of folders or shards as one stream, and the names of what is prepared of them."""

import pytest
from shard_files import jpeg, write_tar

from maskfree.data.examples import decode
from maskfree.data.photo_sources import file_stem, read_sources

PAIR = (("jpg", jpeg()), ("txt", b"a dog"))


@pytest.mark.parametrize(
    ("key", "stem"),
    [
        ("photos/kitchen.v2.jpg", "kitchen.v2"),
        ("000017", "000017"),
        ("a/b/c.JPEG", "c"),
        ("photo.v2", "photo.v2"),  # of a shard: no suffix of photos
        (".jpg", ".jpg"),
        ("x/.webp", ".webp"),
        ("two.png.png", "two.png"),
        ("train/000.5", "000.5"),
    ],
)
def test_a_stem_is_the_name_without_folders_and_the_photos_suffix(key, stem):
    assert file_stem(key) == stem


def test_photos_of_folders_come_in_order(tmp_path):
    for name in ("b/2.jpg", "b/1.png", "a/deep/3.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(jpeg())
    examples = list(read_sources([str(tmp_path / "b"), str(tmp_path / "a")]))
    assert [file_stem(example.key) for example in examples] == ["1", "2", "3"]
    assert decode(examples[0], 0).size == (40, 30)


def test_photos_of_shards_come_in_order_whether_by_file_folder_or_pattern(tmp_path):
    for index in range(2):
        entries = [(f"{index}{i}.{kind}", content) for i in range(3) for kind, content in PAIR]
        write_tar(tmp_path / "shards" / f"s-{index}.tar", entries)
    folder = tmp_path / "shards"
    for source in (
        [str(folder)],
        [str(folder / "s-{0..1}.tar")],
        [str(folder / f"s-{i}.tar") for i in range(2)],
    ):
        assert [example.key for example in read_sources(source)] == [
            "00",
            "01",
            "02",
            "10",
            "11",
            "12",
        ]


def test_samples_without_a_photo_come_with_a_problem(tmp_path):
    write_tar(
        tmp_path / "s.tar", [("0.jpg", jpeg()), ("0.txt", b"a dog"), ("1.txt", b"a caption alone")]
    )
    assert [bool(example.problem) for example in read_sources([str(tmp_path / "s.tar")])] == [
        False,
        True,
    ]


def test_nothing_to_read_is_said_before_anything_is_read(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(jpeg())
    write_tar(tmp_path / "shards" / "s.tar", [(f"0.{kind}", content) for kind, content in PAIR])
    with pytest.raises(FileNotFoundError, match="empty' holds no photo"):
        read_sources([str(tmp_path / "empty")])
    with pytest.raises(FileNotFoundError, match="none"):
        read_sources([str(tmp_path / "none")])
    with pytest.raises(ValueError, match="no photos were given"):
        read_sources([])
    with pytest.raises(ValueError, match="photos' is a folder of photos, others are shards"):
        read_sources([str(tmp_path / "shards"), str(tmp_path / "photos")])


def test_photos_of_shards_need_no_captions(tmp_path):
    write_tar(tmp_path / "s.tar", [("0.jpg", jpeg()), ("1.jpg", jpeg()), ("1.txt", b"a dog")])
    examples = list(read_sources([str(tmp_path / "s.tar")]))
    assert [(example.key, example.problem, example.captions) for example in examples] == [
        ("0", "", ()),
        ("1", "", ()),
    ]
    assert all(decode(example, 0).size == (40, 30) for example in examples)


@pytest.mark.parametrize("letter", ["k", "é", "狗"])
def test_a_long_key_has_a_short_stem_of_its_own(tmp_path, letter):
    keys = [f"folder/{letter * 400}{number}" for number in range(2)]
    stems = [file_stem(key) for key in keys]
    assert len(set(stems)) == 2 and stems == [file_stem(key) for key in keys]
    for stem in stems:
        assert stem.startswith(letter * 50)
        (tmp_path / f".{stem}.safetensors.abcdefgh").touch()
    assert file_stem("a" * 200 + ".jpg") == "a" * 200


def test_photos_with_unreadable_captions_are_photos(tmp_path):
    write_tar(tmp_path / "a.tar", [("a.jpg", jpeg()), ("a.json", b"["), ("b.txt", b"a dog")])
    photo, without = read_sources([str(tmp_path)])
    assert (photo.problem, photo.captions, photo.photo) == ("", (), jpeg())
    assert without.problem.startswith("no photo")
