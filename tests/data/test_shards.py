"""Shards: what names them, what they may hold, and what becomes of what is broken."""

import functools
import gzip
import http.server
import io
import json
import os
import re
import tarfile
import threading
from collections import Counter

import pytest
from shard_files import jpeg, pairs, write_tar

import maskfree.data.shards as shards_module
from maskfree.data.entities.caption_pairs import read_pairs
from maskfree.data.shards import (
    _plain_members,
    _streamed_members,
    find_shards,
    read_shards,
)
from shared_folder import SHARED


def test_patterns_name_files_folders_globs_braces_and_urls(tmp_path):
    names = [write_tar(tmp_path / f"train-{i:03d}.tar", pairs("a")) for i in range(4)]
    every, first = tuple(map(str, names)), str(names[0])
    assert find_shards([str(tmp_path)]) == every
    assert find_shards([str(tmp_path / "train-*.tar")]) == every
    assert find_shards([str(tmp_path / "train-{000..002}.tar"), every[3]]) == every
    assert find_shards([f"file:{first}"]) == find_shards([f"file://{first}"]) == (first,)
    assert find_shards(["https://a.org/{x,y}.tar"]) == (
        "https://a.org/x.tar",
        "https://a.org/y.tar",
    )


@pytest.mark.parametrize(
    ("pattern", "error", "words"),
    [
        ("{}/none.tar", FileNotFoundError, "none.tar"),
        ("{}/none-*.tar", FileNotFoundError, "none-*.tar"),
        ("{}/some-{{000..001}}.tar", FileNotFoundError, "some-001.tar"),
        ("{}/folder", FileNotFoundError, "holds no .tar"),
        ("{}/empty.tar", ValueError, "empty.tar' is empty"),
        ("pipe:cat {}/some-000.tar", ValueError, "pipe: is not allowed"),
        ("ftp://bucket/some.tar", ValueError, "ftp: is not allowed"),
        ("{}/some-{{000..001.tar", ValueError, "Unbalanced braces"),
    ],
)
def test_bad_patterns_are_named(tmp_path, pattern, error, words):
    write_tar(tmp_path / "some-000.tar", pairs("a"))
    (tmp_path / "empty.tar").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(error, match=re.escape(words)) as raised:
        find_shards([pattern.format(tmp_path)])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ({"json": {"captions": ["one", " two\n words "]}}, ("one", "two words")),
        ({"json": {"caption": "one"}}, ("one",)),
        ({"txt": "one\n"}, ("one",)),
        ({"json": {"captions": ["a", "b"]}, "txt": "c"}, ("a", "b")),
        ({"json": {"width": 3}, "txt": "c"}, ("c",)),
        ({"json": {"captions": "a dog"}}, ("a dog",)),
        ({"json": {"caption": ["a dog", "a cat"]}}, ("a dog", "a cat")),
        ({"json": {"captions": None, "caption": "one"}}, ("one",)),
        ({"json": {"captions": [], "caption": ""}, "txt": "c"}, ("c",)),
        ({"json": {"caption": "one", "score": float("nan")}}, ("one",)),
        ({"json": [1, 2], "txt": "c"}, ("c",)),
        ({"txt": "\ufeffone\r\n"}, ("one",)),
    ],
)
@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "JPG"])
def test_captions_and_photos_of_every_form(tmp_path, caption, expected, suffix):
    texts = {k: (v if isinstance(v, str) else json.dumps(v)).encode() for k, v in caption.items()}
    shard = write_tar(
        tmp_path / "a.tar",
        [(f"k/x.{suffix}", b"photo"), *((f"k/x.{k}", v) for k, v in texts.items())],
    )
    (example,) = read_shards([str(shard)])
    assert (example.key, example.photo, example.captions, example.problem) == (
        "k/x",
        b"photo",
        expected,
        "",
    )


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ([("x.txt", b"a dog")], "no photo"),
        ([("x.jpg", b"photo")], "no caption"),
        ([("x.jpg", b"photo"), ("x.txt", b"  \n")], "no caption"),
        ([("x.jpg", b"photo"), ("x.json", b"{")], "unreadable captions"),
        ([("x.jpg", b"photo"), ("x.json", b'{"captions": [3]}')], "unreadable captions"),
        ([("x.jpg", b"photo"), ("x.json", b'{"captions": 3}')], "unreadable captions"),
        (
            [("x.jpg", b"photo"), ("x.txt", b"\xff\xfe")],
            "unreadable captions: the .txt file is not UTF-8",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", "{}".encode("utf-16"))],
            "unreadable captions: the .json file is not UTF-8",
        ),
        ([("x.jpg", b"photo"), ("x.json", b'{"captions": null}')], "no caption"),
        (
            [("x.jpg", b"photo"), ("x.json", b'{"captions": 0}')],
            "unreadable captions: 'captions' in the .json file is",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", b'{"captions": {"a": "dog"}}')],
            "unreadable captions: 'captions' in",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", b'{"captions": [["a dog"]]}')],
            "neither a string nor a list of strings",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", b'{"captions": ["a", null]}')],
            "neither a string nor a list of strings",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", b'"a dog"')],
            "unreadable captions: the .json file holds no object",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", b'{"caption": "\\ud800"}')],
            "unreadable captions: a caption holds half",
        ),
        (
            [("x.jpg", b"photo"), ("x.json", b"[" * 200_000)],
            "unreadable captions: the .json file is no JSON that is",
        ),
        (
            [("x.jpg", b"photo"), ("x.txt", b"a " * 2**21 + b"dog")],
            "unreadable captions: the .txt file is over 4,194",
        ),
        (
            [("x.v2.jpg", b"photo"), ("x.v2.txt", b"a dog")],
            "no photo: a file ends with .v2.jpg, for the key ends at the",
        ),
    ],
)
def test_what_is_wrong_with_a_sample_is_said(tmp_path, entries, problem):
    shard = write_tar(tmp_path / "a.tar", [*pairs(["before"]), *entries, *pairs(["later"])])
    before, broken, later = read_shards([str(shard)])
    assert (broken.key, before.problem, later.problem) == ("x", "", "")
    assert problem in broken.problem


def test_a_broken_shard_is_reported_and_the_next_one_read(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", pairs(["c", "d"]))
    cut = write_tar(tmp_path / "cut.tar", pairs(["a", "b"]))
    cut.write_bytes(cut.read_bytes()[: 512 * 5 + 100])
    noise = tmp_path / "noise.tar"
    noise.write_bytes(bytes(range(256)) * 10)
    examples = list(read_shards([str(cut), str(noise), str(tmp_path / "gone.tar"), str(whole)]))
    assert [e.key for e in examples if not e.problem] == ["a", "c", "d"]
    broken = [(e.source, e.problem) for e in examples if e.problem]
    for name in ("cut", "noise", "gone"):
        assert any(name in source and problem.count("\n") == 0 for source, problem in broken), name


def test_shards_come_by_http(tmp_path):
    write_tar(tmp_path / "a.tar", pairs("uvw"))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(Quiet, directory=tmp_path)
    ) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            examples = list(read_shards(find_shards([f"{url}/{{a,missing}}.tar"])))
        finally:
            server.shutdown()
            thread.join()
    assert [e.key for e in examples] == ["u", "v", "w", ""]
    assert "404" in examples[-1].problem and "missing.tar" in examples[-1].source


def test_photo_bytes_are_those_of_the_shard(tmp_path):
    shard = write_tar(tmp_path / "a.tar", [("k.jpg", jpeg(3)), ("k.txt", b"t")])
    assert next(read_shards([str(shard)])).photo == jpeg(3)


def test_every_problem_begins_with_a_reason_by_which_it_is_counted(tmp_path):
    entries = [
        ("a.txt", b"x"),
        ("b.jpg", b"x"),
        ("c.jpg", b"x"),
        ("c.json", b"["),
        ("d.jpg", b"x"),
        ("d.jpg", b"x"),
    ]
    shard = write_tar(tmp_path / "a.tar", entries)
    reasons = [example.problem.partition(":")[0] for example in read_shards([str(shard)])]
    assert reasons == [
        "no photo",
        "no caption",
        "unreadable captions",
        "no caption",
        "broken shard",
    ]


def test_a_name_in_another_encoding_is_told(tmp_path):
    name = b"caf\xe9.jpg".decode(errors="surrogateescape")
    odd, good = read_shards(
        [str(write_tar(tmp_path / "a.tar", [(name, jpeg()), *pairs(["good"])]))]
    )
    assert odd.problem == "unreadable name: names of files in a shard are UTF-8" and not odd.photo
    assert (good.key, good.problem) == ("good", "")


def test_a_file_beyond_the_bound_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "_MAX_BYTES", 2000)
    entries = [
        ("a.jpg", b"x" * 2001),
        ("a.txt", b"a dog"),
        ("b.jpg", b"x"),
        ("b.txt", b"y" * 2001),
        *pairs(["c"]),
    ]
    large, wordy, good = read_shards([str(write_tar(tmp_path / "a.tar", entries))])
    assert large.problem == "unreadable photo: it is over 2,000 bytes"
    assert (
        wordy.problem.startswith("unreadable captions: the .txt file is over")
        and wordy.photo == b"x"
    )
    assert (good.key, good.problem) == ("c", "")


def hostile(path, kind, size):
    """An archive whose second header is of KIND and says SIZE, before a whole sample."""
    write_tar(path, [*pairs(["before"]), ("x.jpg", b"x"), *pairs(["later"])])
    content = bytearray(path.read_bytes())
    place = content.index(b"x.jpg\0")
    content[place + 124 : place + 136], content[place + 156 : place + 157] = size, kind
    check = sum(content[place : place + 148]) + 8 * 32 + sum(content[place + 156 : place + 512])
    content[place + 148 : place + 156] = b"%06o\0 " % check
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "size", [b"77777777777\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"-0000000001\0"]
)
@pytest.mark.parametrize("kind", [b"0", b"x", b"g", b"L", b"K", b"S", b"5"])
def test_sizes_that_no_file_has_end_nothing(tmp_path, kind, size):
    shard = hostile(tmp_path / "a.tar", kind, size)
    examples = list(read_shards([str(shard)]))
    counts = Counter()
    (pair, *_) = read_pairs(shard, counts)
    assert (examples[0].key, examples[0].problem, pair.key) == ("before", "", "before")
    assert any(example.problem for example in examples) or kind in b"5"


def test_a_compressed_archive_is_trained_on_but_not_indexed(tmp_path):
    """Where a photo lies in it cannot be said."""
    shard = write_tar(tmp_path / "a.tar", pairs(["a"]))
    shard.write_bytes(gzip.compress(shard.read_bytes()))
    counts = Counter()
    assert [example.key for example in read_shards([str(shard)])] == ["a"]
    assert list(read_pairs(shard, counts)) == [] and counts["broken shard"] == 1


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "captions", "problem"),
    [
        ("captions_string/cl.tar", [("a dog on grass",)], ""),
        (
            "tar_dotted_keys/dot.tar",
            [()],
            "no photo: a file ends with .v2.0001.jpg, for the key ends at the first dot",
        ),
    ],
)
def test_the_faults_that_people_reported(name, captions, problem):
    shard = SHARED / "faults" / name
    if not shard.exists():
        pytest.skip(f"{shard} is absent")
    examples = list(read_shards([str(shard)]))
    assert [example.captions for example in examples] == captions
    assert all(
        example.problem.startswith(problem) and bool(example.problem) == bool(problem)
        for example in examples
    )


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"alt": "a dog on grass"}, ["a dog on grass"]),
        ({"caption": "c", "alt": ["one", "two"]}, ["c", "one", "two"]),
        ({"tags": ["dog", " green grass ", ""]}, ["dog, green grass"]),
        ({"tags": "dog, grass"}, ["dog, grass"]),
        (
            {"hashtags": "#GoldenRetriever #park_bench, #sunny"},
            ["golden retriever, park bench, sunny"],
        ),
        ({"hashtags": ["#dog", "Beach"], "tags": ["x"]}, ["x", "dog, beach"]),
        # Fields of these names with other content are no texts.
        ({"caption": "c", "tags": {"a": 1}, "hashtags": [3], "alt": None}, ["c"]),
    ],
)
def test_alt_text_and_tags_are_texts(tmp_path, record, texts):
    entries = [("k.jpg", jpeg()), ("k.json", json.dumps(record).encode())]
    (example,) = read_shards([str(write_tar(tmp_path / "a.tar", entries))])
    assert list(example.captions) == texts and not example.problem


def test_tags_stand_beside_the_text_file(tmp_path):
    entries = [("k.jpg", jpeg()), ("k.json", b'{"tags": ["dog"]}'), ("k.txt", b"a caption")]
    (example,) = read_shards([str(write_tar(tmp_path / "a.tar", entries))])
    assert example.captions == ("a caption", "dog")


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_on_disk_give_what_a_stream_gives(tmp_path, form):
    names = ["a.jpg", "b/" * 60 + "c.txt", "d" * 120 + ".jpg", "größe.txt", "e.jpg"]
    if form == tarfile.USTAR_FORMAT:  # holds no long name without a folder, and no umlaut
        names = [names[0], names[1], names[4]]
    path = tmp_path / "some.tar"
    with tarfile.open(path, "w", format=form) as archive:
        folder = tarfile.TarInfo("folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for size, name in zip((0, 1, 512, 513, 3000), names, strict=False):
            info = tarfile.TarInfo(name)
            info.size = size
            archive.addfile(info, io.BytesIO(bytes(range(250)) * 12))
    found = list(_plain_members(str(path)))
    assert [name for name, _ in found] == names
    assert found == list(_streamed_members(str(path)))


def test_an_archive_may_be_a_pipe(tmp_path):
    whole = write_tar(tmp_path / "whole.tar", pairs(["a", "b"])).read_bytes()
    pipe = tmp_path / "pipe.tar"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(whole,))
    writer.start()
    assert [example.key for example in read_shards([str(pipe)])] == ["a", "b"]
    writer.join()
