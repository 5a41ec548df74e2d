"""How `--model` is taken apart, and what is said about a name that is none."""

from __future__ import annotations

import pytest

from maskfree.hub.model_name import ModelName, is_open_clip, may_be_hub_name, parse_model_name

METHODS = ("naclip", "groupvit", "ovsegmentor", "maskclip")


@pytest.mark.parametrize(
    ("text", "method", "source", "short"),
    [
        ("naclip", "naclip", None, "naclip"),
        ("naclip:openai/clip-b", "naclip", "openai/clip-b", "naclip-clip-b"),
        ("openai/clip-b", None, "openai/clip-b", "clip-b"),
        (
            "maskclip:ViT-B-16/l2b_s34b",
            "maskclip",
            "ViT-B-16/l2b_s34b",
            "maskclip-ViT-B-16-l2b_s34b",
        ),
        ("groupvit:a/FOLDER.pth", "groupvit", "a/FOLDER.pth", "groupvit-FOLDER"),
        ("ovsegmentor:ovsegmentor.pth", "ovsegmentor", "ovsegmentor.pth", "ovsegmentor"),
        (r"C:\models\clip", None, r"C:\models\clip", "clip"),
        ("D:/models/clip", None, "D:/models/clip", "clip"),
        (r"naclip:C:\models\clip", "naclip", r"C:\models\clip", "naclip-clip"),
        ("./naclip", None, "./naclip", "naclip"),
        ("./x:y", None, "./x:y", "x:y"),
        ("runs/a:b", None, "runs/a:b", "a:b"),
        ("naclips", None, "naclips", "naclips"),
    ],
)
def test_names_are_taken_apart(text: str, method: str | None, source: str | None, short: str):
    name = parse_model_name(text, METHODS)
    assert name == ModelName(method, source)
    assert name.short == short


def test_unknown_method():
    with pytest.raises(
        ValueError,
        match=r"^'x1:a/b': there is no method 'x1': one of groupvit, maskclip, naclip, o",
    ):
        parse_model_name("x1:a/b", METHODS)


def test_method_without_a_source():
    with pytest.raises(ValueError, match=r"^'naclip:' names no source: leave the colon out, or"):
        parse_model_name("naclip:", METHODS)


def test_kinds_of_sources():
    assert is_open_clip("ViT-B-16/laion2b_s34b_b88k") and is_open_clip("RN50/openai")
    assert not is_open_clip("openai/clip-vit-base-patch16") and not is_open_clip("ViT-B-16")
    assert may_be_hub_name("openai/clip-vit-base-patch16")
    for source in ("ViT-B-16/openai", "a/b/c", "/a/b", "../b", "./b", r"C:\a", "a b/c", "pocket"):
        assert not may_be_hub_name(source)
