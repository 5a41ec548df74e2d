"""The page in a real browser."""

from __future__ import annotations

import base64
import io
import json
import shlex
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from serve import browser as rig

if reason := rig.missing():
    pytest.skip(reason, allow_module_level=True)

from playwright.sync_api import Page, expect

from maskfree.cli.parsing import parse_call
from maskfree.cli.segment import segment
from maskfree.serve.limits import Access, Limits

pytestmark = pytest.mark.browser
EXAMPLES = Path(__file__).parents[2] / "examples"
PHOTO = EXAMPLES / "pagoda.jpg"
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with rig.served(Access(), Limits()) as place:
        yield place


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with rig.browser() as started:
        yield started


@pytest.fixture
def open_page(chromium: Any, address: str) -> Iterator[Open]:
    """`open_page(**settings of the browser's context)` is the page; it asks nobody but us."""
    contexts, foreign, errors = [], [], []

    def begin(place: str = address, **settings: Any) -> Page:
        context = chromium.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: request.url.startswith((place, "blob:")) or
                foreign.append(request.url))  # fmt: skip
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(60_000)
        page.goto(place)
        expect(page.locator("html[data-ready=yes]")).to_have_count(1)
        return page

    yield begin
    for context in contexts:
        context.close()
    assert not foreign and not errors


def labeled(page: Page, content: str = "Labeled in") -> None:
    expect(page.locator("#status")).to_contain_text(content, timeout=60_000)


def add(page: Page, *words: str) -> None:
    for word in words:
        page.fill("#words-input", word)
        page.press("#words-input", "Enter")


def take(page: Page, *words: str, photo: Path = PHOTO) -> None:
    add(page, *words)
    page.set_input_files("#file", photo)
    labeled(page)


def slide(page: Page, name: str, value: int) -> None:
    page.locator(name).evaluate(
        "(input, value) => { input.value = value; "
        "input.dispatchEvent(new Event('input', {bubbles: true})); }",
        value,
    )


def areas(page: Page) -> dict[str, float]:
    """Percent of each name in the legend."""
    rows = page.locator("#legend li").all()
    texts = [
        (row.locator("label").inner_text(), row.locator("output").inner_text()) for row in rows
    ]
    return {name.strip(): float(area.removesuffix(" %")) for name, area in texts}


def canvas_bytes(page: Page) -> str:
    page.evaluate(
        "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
    )
    return page.locator("canvas").first.evaluate("(canvas) => canvas.toDataURL()")


def labels_of(page: Page) -> tuple[np.ndarray, list[str]]:
    """Label map that the page saves as PNG."""
    page.select_option("#format", "png")
    with page.expect_download() as download:
        page.click("#save")
    with Image.open(download.value.path()) as image:
        return np.asarray(image), json.loads(image.info["names"])


def server_labels(address: str, photo: Path, *words: str, **options: str) -> np.ndarray:
    """Label map that the server makes."""
    parts = [("words", word) for word in words] + list(options.items())
    body = b"".join(
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in parts
    )
    head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a.jpg"\r\n\r\n'
    body += head + photo.read_bytes() + b"\r\n--x--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    with urlopen(Request(f"{address}/v1/segment", body, kind)) as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())))


def test_main_path(open_page: Open):
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    take(page, "building, sky/cloud", "tree")
    expect(page.locator("#chips li")).to_have_count(3)
    found = areas(page)
    assert set(found) == {"building", "sky", "tree"}
    assert sum(found.values()) == pytest.approx(100, abs=0.3)
    assert min(found.values()) > 5
    seconds = float(page.inner_text("#status").split()[2])
    assert seconds < 10

    # What needs no network asks for nothing.
    num_asked = asked.count("scores")
    before = canvas_bytes(page)
    slide(page, "#opacity", 90)
    assert canvas_bytes(page) != before
    slide(page, "#threshold", 40)
    expect(page.locator("#legend")).to_contain_text("background")
    assert 1 < areas(page)["background"] < 99
    slide(page, "#threshold", 0)
    expect(page.locator("#threshold-out")).to_have_text("off")
    num_regions = page.locator("#regions li").count()
    slide(page, "#area", 50)
    expect(page.locator("#area-out")).to_have_text("3.2 %")
    assert 3 <= page.locator("#regions li").count() < num_regions
    page.uncheck("#legend input >> nth=0")
    hidden = canvas_bytes(page)
    page.check("#legend input >> nth=0")
    assert canvas_bytes(page) != hidden
    page.select_option("#background", "none")
    num_asked = asked.count("scores")
    page.click("[aria-label='Remove tree']")
    expect(page.locator("#legend li")).to_have_count(2)
    assert asked.count("scores") == num_asked


def test_one_or_two_words_compete_with_the_scene(open_page: Open, address: str):
    page = open_page()
    take(page, "building", "tree", "boat")
    expect(page.locator("#competing")).to_be_hidden()
    page.click("[aria-label='Remove boat']")
    expect(page.locator("#competing")).to_contain_text("compete with wall, floor")
    labels, names = labels_of(page)
    assert names == ["building", "tree", "background"]
    expected = server_labels(address, PHOTO, "building", "tree")
    assert (labels == expected).mean() > 0.998
    assert (expected == 2).mean() > 0.05
    page.click("#copy-command")
    assert "--background" not in page.inner_text("#copied")

    # A threshold takes their place, and gives it back.
    slide(page, "#threshold", 1)
    expect(page.locator("#competing")).to_be_hidden()
    assert (labels_of(page)[0] == 2).mean() < 0.05
    page.click("#copy-command")
    assert "--background threshold:" in page.inner_text("#copied")
    slide(page, "#threshold", 0)
    expect(page.locator("#competing")).to_be_visible()
    np.testing.assert_array_equal(labels_of(page)[0], labels)


def test_pointer_tells_word_and_confidence(open_page: Open):
    page = open_page()
    take(page, "building", "sky", "tree")
    box = page.locator("canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.1 * box["height"])
    tip = page.locator(".tip")
    expect(tip).to_be_visible()
    word, _, confidence = tip.inner_text().partition(", ")
    assert word == "sky"
    assert 34 < int(confidence.removesuffix(" %")) <= 100
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()


@pytest.mark.parametrize("options", [{}, {"background": "auto"}, {"refine": "regions"}])
def test_labels_are_those_of_the_server(open_page: Open, address: str, options: dict[str, str]):
    page = open_page()
    words = ("building", "sky", "tree", "water")
    if "background" in options:
        page.select_option("#background", options["background"])
    if "refine" in options:
        page.check("#edges")
    take(page, *words)
    labels, names = labels_of(page)
    assert names[:4] == list(words)
    expected = server_labels(address, PHOTO, *words, **options)
    # Scores travel with 11 bits.
    assert (labels == expected).mean() > 0.998
    assert len(np.unique(expected)) >= 4


def test_regions_are_renamed_deleted_and_restored(open_page: Open):
    page = open_page()
    take(page, "building", "sky", "tree")
    first = page.locator("#regions button").first
    page.locator("canvas").click(position={"x": 150, "y": 200})
    expect(page.locator("#region-title")).to_have_text("Region: building")
    page.fill("#region-name", "pagoda")
    page.press("#region-name", "Enter")
    expect(page.locator("#legend")).to_contain_text("pagoda")
    renamed = areas(page)["pagoda"]
    assert renamed > 20

    first.click()
    page.click("#region-dialog button[value=delete]")
    labeled(page, "The region is deleted.")
    labels, names = labels_of(page)
    assert (labels == 255).mean() * 100 == pytest.approx(renamed, abs=0.1)
    assert "pagoda" in names

    for _ in range(2):
        page.click("#undo")
    expect(page.locator("#undo")).to_be_hidden()
    assert "pagoda" not in areas(page)


def test_two_models_side_by_side(open_page: Open):
    page = open_page()
    take(page, "building", "sky", "tree")
    page.select_option("#compare", "coarse")
    labeled(page)
    expect(page.locator("canvas")).to_have_count(2)
    expect(page.locator(".busy")).to_have_count(0)
    pictures = [page.locator("canvas").nth(i).evaluate("(c) => c.toDataURL()") for i in (0, 1)]
    assert pictures[0] != pictures[1]


@pytest.mark.parametrize("edges", [False, True])
def test_the_command_and_the_line_give_the_same(
    open_page: Open, monkeypatch: pytest.MonkeyPatch, edges: bool
):
    page = open_page()
    if edges:
        page.check("#edges")
    take(page, "building", "sky/blue sky")
    slide(page, "#threshold", 30)
    expect(page.locator("#competing")).to_be_hidden()
    expect(page.locator("#threshold-out")).not_to_have_text("off")
    page.click("#copy-command")
    words = shlex.split(page.inner_text("#copied"))
    threshold = page.inner_text("#threshold-out")
    assert words[:6] == ["maskfree", "segment", "pagoda.jpg", "--words", "building", "sky/blue sky"]
    rule = words[words.index("--background") + 1]
    assert float(rule.removeprefix("threshold:")) == pytest.approx(float(threshold), abs=0.006)
    parse_call(segment, "maskfree segment", words[2:])

    page.click("#copy-python")
    monkeypatch.chdir(EXAMPLES)
    made: dict[str, Any] = {}
    exec(page.inner_text("#copied"), made)
    labels, names = labels_of(page)
    assert names == ["building", "sky", "background"]
    assert (labels == made["result"].labels).mean() > 0.99


def test_keyboard_only(open_page: Open):
    page = open_page()
    press = page.keyboard.press

    def reach(selector: str, most: int = 40) -> None:
        for _ in range(most):
            if page.locator(f"{selector}:focus").count():
                return
            press("Tab")
        raise AssertionError(f"Tab does not reach {selector}")

    press("Tab")
    expect(page.locator(".skip")).to_be_focused()
    press("Enter")
    expect(page.locator("#words-input")).to_be_focused()
    page.keyboard.type("sky")
    press("Enter")
    reach("[data-example=chelsea]")
    press("Enter")
    labeled(page)
    reach("canvas")
    press("ArrowRight")
    labeled(page, "%")
    press("Enter")
    expect(page.locator("#region-name")).to_be_focused()
    press("Escape")
    expect(page.locator("#region-dialog")).to_be_hidden()
    reach("#opacity", 80)
    press("ArrowRight")
    expect(page.locator("#opacity-out")).to_have_text("51 %")
    page.locator("#tab-photo").focus()
    press("ArrowRight")
    expect(page.locator("#batch-panel")).to_be_visible()
    expect(page.locator("#tab-batch")).to_be_focused()


def test_phone_width(open_page: Open):
    page = open_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    take(page, "building", "sky", "tree")
    page.select_option("#compare", "coarse")
    labeled(page)
    for tab in ("#tab-photo", "#tab-batch"):
        page.click(tab)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= 360
    page.click("#tab-photo")
    page.locator("canvas").first.tap(position={"x": 100, "y": 60})
    expect(page.locator("#region-dialog")).to_be_visible()


def test_a_broken_photo_is_said_and_the_page_goes_on(open_page: Open, tmp_path: Path):
    page = open_page()
    add(page, "sky", "tree")
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(PHOTO.read_bytes()[:300])
    page.set_input_files("#file", broken)
    expect(page.locator("#error")).to_contain_text("broken.jpg cannot be shown")
    page.set_input_files("#file", PHOTO)
    labeled(page)
    expect(page.locator("#error")).to_be_hidden()


def test_errors_are_words(open_page: Open):
    page = open_page()
    page.set_input_files("#file", PHOTO)
    expect(page.locator("#error")).to_contain_text("Add a word first")
    add(page, "sky")
    labeled(page)
    add(page, "Sky")
    expect(page.locator("#error")).to_have_text('The word "sky" is there already.')
    add(page, "a" * 101)
    expect(page.locator("#error")).to_contain_text("100 is the most")
    page.route("**/v1/scores", lambda route: route.abort())
    page.click("#chips li >> nth=1 >> button")
    add(page, "tree")
    expect(page.locator("#error")).to_contain_text("The server does not answer")


def test_two_tabs_do_not_disturb_each_other(open_page: Open):
    first = open_page()
    second = first.context.new_page()
    second.goto(first.url)
    expect(second.locator("html[data-ready=yes]")).to_have_count(1)
    add(first, "building", "sky", "boat")
    add(second, "tree", "water", "sky")
    for page in (first, second):
        page.set_input_files("#file", PHOTO)
    labeled(first)
    labeled(second)
    assert set(areas(first)) == {"building", "sky", "boat"}
    assert set(areas(second)) == {"tree", "water", "sky"}


def test_many_photos_become_a_zip(open_page: Open, address: str, tmp_path: Path):
    page = open_page()
    add(page, "sky", "tree", "rocket")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no photo")
    twin = tmp_path / "pagoda.png"
    Image.open(EXAMPLES / "rocket.jpg").resize((160, 107)).save(twin)
    page.click("#tab-batch")
    page.set_input_files("#batch-files", [PHOTO, broken, twin])
    status = page.locator("#batch-status")
    expect(status).to_have_text("2 of 3 photos are labeled, 1 could not be.", timeout=60_000)
    expect(page.locator("#batch-list .bad")).to_contain_text("not an image")
    assert page.locator("#batch-bar").evaluate("(bar) => bar.value / bar.max") == 1
    with page.expect_download() as download:
        page.click("#batch-save")
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            "labels/pagoda-2.png",
            "labels/pagoda.png",
            "names.json",
        ]
        assert json.loads(archive.read("names.json")) == ["sky", "tree", "rocket"]
        maps = [
            np.asarray(Image.open(archive.open(f"labels/{n}.png"))) for n in ("pagoda", "pagoda-2")
        ]
    maps.sort(key=lambda labels: -labels.size)
    expected = [server_labels(address, photo, "sky", "tree", "rocket") for photo in (PHOTO, twin)]
    for labels, own in zip(maps, expected, strict=True):
        assert (labels == own).mean() > 0.999


def test_theme_is_the_systems_until_it_is_chosen(open_page: Open):
    page = open_page(color_scheme="dark")
    theme = page.locator("html")
    expect(theme).to_have_attribute("data-theme", "dark")
    page.click("#theme")
    expect(theme).to_have_attribute("data-theme", "light")
    page.reload()
    expect(theme).to_have_attribute("data-theme", "light")


def test_token_is_asked_for_once(chromium: Any):
    with rig.served(Access(token="s3cret"), Limits()) as place:
        page = chromium.new_page()
        page.goto(place)
        expect(page.locator("#token-dialog")).to_be_visible()
        page.fill("#token", "s3cret")
        page.press("#token", "Enter")
        expect(page.locator("html[data-ready=yes]")).to_have_count(1)
        take(page, "sky", "building")
        page.close()


@pytest.mark.parametrize("settings", [{"color_scheme": "light"}, {"color_scheme": "dark"},
                                      {"viewport": {"width": 360, "height": 740}}])  # fmt: skip
def test_accessibility(open_page: Open, address: str, settings: dict[str, Any]):
    if not rig.AXE.is_file():
        pytest.skip("axe-core is not here: npm install axe-core, and set MASKFREE_AXE")
    page = open_page(bypass_csp=True, **settings)

    def check(where: str) -> None:
        page.add_script_tag(path=str(rig.AXE))
        found = page.evaluate("async () => (await axe.run()).violations")
        serious = {
            each["id"]: [node["target"] for node in each["nodes"]]
            for each in found
            if each["impact"] in ("serious", "critical")
        }
        assert not serious, f"{where}: {serious}"

    check("empty")
    take(page, "building", "sky/cloud", "tree")
    check("labeled")
    page.locator("#regions button").first.click()
    check("dialog")
    page.keyboard.press("Escape")
    page.click("#tab-batch")
    check("batch")
    page.goto(f"{address}/api")
    expect(page.locator("html[data-ready=yes]")).to_have_count(1)
    check("api")


def test_a_dropped_photo_is_taken(open_page: Open):
    page = open_page()
    add(page, "sky", "building")
    content = base64.b64encode(PHOTO.read_bytes()).decode()
    page.evaluate(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const files = new DataTransfer();
            files.items.add(new File([bytes], "dropped.jpg", {type: "image/jpeg"}));
            document.dispatchEvent(new DragEvent("drop", {dataTransfer: files}));
        }""",
        content,
    )
    labeled(page)
    page.click("#copy-command")
    assert "dropped.jpg" in page.inner_text("#copied")


def test_saving_as_coco_brings_the_photo_along(open_page: Open):
    page = open_page()
    take(page, "building", "sky", "tree")
    page.select_option("#format", "coco")
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == "pagoda.coco.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        assert any(name.endswith(".jpg") for name in archive.namelist())
        (name,) = (name for name in archive.namelist() if name.endswith(".json"))
        told = json.loads(archive.read(name))
    assert {each["name"] for each in told["categories"]} == {"building", "sky", "tree"}
    assert len(told["annotations"]) >= 3
