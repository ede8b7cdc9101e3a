"""The page end to end, in headless Chromium over a real server."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Page, browser
from many_classes import imagenet_sized
from serving import Gate, Running, generator, running, until

import cgnrt
from cgnrt.plan import BankContents, write_bank
from cgnrt.serve.log import Log
from cgnrt.serve.service import Service

pytestmark = pytest.mark.extended

PX, TILE, GAP, HEAD, MARGIN = 32, 96, 6, 20, 84  # of a sheet, as pictures.js has them
NAME = "double-colored"
LINK = "#shape=3&texture=4&background=5&sample=12&seed=7"


@pytest.fixture(scope="module")
def demo(demo_plan: Path) -> Iterator[Running]:
    with running(Service(generator(demo_plan), NAME)) as found:
        yield found


@pytest.fixture(scope="module")
def alone(demo_plan: Path) -> cgnrt.Generator:
    return generator(demo_plan)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """A window of a desktop; whatever the test does, the console stays silent."""
    opened.emulate(1280, 900)
    yield opened
    assert opened.console() == []


def image(alone: cgnrt.Generator, *labels: int, sample: int, seed: int) -> np.ndarray:
    shape, texture, background = ([label] for label in labels)
    return np.asarray(alone(shape, texture, background, indices=[sample], seed=seed, parts=True).images[0])


def tile(sheet: np.ndarray, column: int, row: int, across: int) -> np.ndarray:
    """A picture of a sheet at its own size, after checking that each of its pixels is one square."""
    line, column = divmod(column, across)
    left = MARGIN + column * (TILE + GAP)
    top = GAP + line * (HEAD + 4 * (TILE + GAP)) + HEAD + row * (TILE + GAP)
    found = sheet[top : top + TILE, left : left + TILE]
    small = found[:: TILE // PX, :: TILE // PX]
    np.testing.assert_array_equal(found, np.kron(small, np.ones((TILE // PX, TILE // PX, 1), np.uint8)))
    return small


def shown(page: Page, selector: str) -> np.ndarray:
    """The pixels on a canvas."""
    width, height, data = page.script(
        "const c = arguments[0], k = new OffscreenCanvas(c.width, c.height).getContext('2d');"
        "k.drawImage(c, 0, 0); return [c.width, c.height, Array.from(k.getImageData(0, 0, c.width, c.height).data)]",
        page[selector],
    )
    return np.asarray(data, np.uint8).reshape(height, width, 4)[..., :3]


def test_a_setting_is_chosen_seen_and_saved(page: Page, demo: Running, alone: cgnrt.Generator) -> None:
    page.open(demo.http)
    assert page["h1"].text == NAME
    page.type("#shape", "7")
    page.type("#texture", "aqu")
    page.type("#background", "FUCHSIA")
    page.type("#sample", "12")
    page.type("#seed", "18446744073709551615")
    assert page["#texture"].get_attribute("value") == "aqua"
    chosen = {"shape": "7", "texture": "3", "background": "8", "sample": "12", "seed": str(2**64 - 1)}
    assert chosen.items() <= page.link.items()
    expected = image(alone, 7, 3, 8, sample=12, seed=2**64 - 1)
    np.testing.assert_array_equal(page.saved("#save-image"), expected)
    np.testing.assert_array_equal(shown(page, "#picture-composite"), expected)
    parts = alone([7], [3], [8], indices=[12], seed=2**64 - 1, parts=True)
    mask = np.round(np.asarray(parts.mask)[0].transpose(1, 2, 0) * 255)
    assert abs(shown(page, "#picture-mask") - mask).max() <= 1
    foreground = np.round((np.asarray(parts.foreground)[0].transpose(1, 2, 0) + 1) * 127.5)
    assert abs(shown(page, "#picture-foreground") - foreground).max() <= 1


def test_a_link_brings_a_setting_back(page: Page, demo: Running, alone: cgnrt.Generator) -> None:
    page.open(demo.http, LINK)
    np.testing.assert_array_equal(shown(page, "#picture-composite"), image(alone, 3, 4, 5, sample=12, seed=7))
    page.open(demo.http, "#shape=9&texture=lime")
    assert page["#texture"].get_attribute("value") == "lime"
    assert page.link["texture"] == "2"
    page.script("location.hash = arguments[0]", LINK)
    page.until(lambda: page["#shape"].get_attribute("value") == "3")
    page.idle()


def test_two_are_locked_and_the_third_varies(page: Page, demo: Running, alone: cgnrt.Generator) -> None:
    page.open(demo.http, LINK)
    page.click("input[name=free][value=shape]")
    assert [tile.text for tile in page.all("#variants button")] == list(alone.classes["shape"])
    assert [tile.text for tile in page.all("#variants [aria-current]")] == ["3"]
    sheet = page.saved("#save-sheet")
    for shape in range(10):  # merged into one engine call or not, as they come
        expected = image(alone, shape, 4, 5, sample=12, seed=7).astype(int)
        assert abs(tile(sheet, shape, 3, 10) - expected).max() <= 1
        assert np.ptp(tile(sheet, shape, 0, 10), axis=2).max() == 0  # a mask is grey
    page.click("#variants button:nth-child(8)")
    assert page["#shape"].get_attribute("value") == "7"
    assert page.link["shape"] == "7"
    np.testing.assert_array_equal(
        page.saved("#save-image"), tile(sheet, 7, 3, 10)
    )  # what was made once is kept


def test_a_texture_that_follows_the_shape_has_no_control_of_its_own(page: Page, tmp_path: Path) -> None:
    names, labels, rng = ["cat", "dog", "hen"], np.arange(6) % 3, np.random.default_rng(0)
    masks, objects = (rng.integers(0, 256, (6, channels, 16, 16), np.uint8) for channels in (1, 3))
    write_bank(
        tmp_path / "photos.plan",
        shape=BankContents(masks, labels, names),
        texture=BankContents(objects, labels, names, follows="shape"),
        background=BankContents(objects, labels, names),
    )
    gen = generator(tmp_path / "photos.plan")
    with running(Service(generator(tmp_path / "photos.plan"), "photos")) as server:
        page.open(server.http, "#shape=2&texture=0&background=1&sample=3&seed=7&free=texture")
        assert page["#shape"].is_displayed()
        assert not page["#texture"].is_displayed()
        assert not page["input[name=free][value=texture]"].is_displayed()
        assert (page.link["texture"], page.link["free"]) == ("2", "shape")
        np.testing.assert_array_equal(
            shown(page, "#picture-composite"), image(gen, 2, 2, 1, sample=3, seed=7)
        )
        page.click("#variants button:nth-child(1)")
        np.testing.assert_array_equal(
            shown(page, "#picture-composite"), image(gen, 0, 0, 1, sample=3, seed=7)
        )
        page.type("#shape", "dog")
        np.testing.assert_array_equal(
            shown(page, "#picture-composite"), image(gen, 1, 1, 1, sample=3, seed=7)
        )


def test_a_path_between_two_settings(page: Page, demo: Running, alone: cgnrt.Generator) -> None:
    from selenium.webdriver.common.keys import Keys

    page.open(demo.http, LINK)
    page["#tab-vary"].send_keys(Keys.ARROW_RIGHT)
    page.idle()
    page.type("#end-shape", "8")
    page.type("#end-texture", "maroon")
    page.type("#end-background", "lime")
    page.type("#end-sample", "31")
    page.type("#frames", "14")
    expected = np.asarray(
        alone.interpolate(
            14, shape=(3, 8), texture=(4, 8), background=(5, 6), seed=7, start=12, end=31, parts=True
        ).images
    )
    assert len(page.all("#steps button")) == 14
    page.slide("#at", 6)
    assert page["#at-text"].text == "7 of 14"
    np.testing.assert_array_equal(page.saved("#save-image"), expected[6])
    sheet = page.saved("#save-sheet")
    for k in range(14):  # twelve in a line
        np.testing.assert_array_equal(tile(sheet, k, 3, 12), expected[k])
    page.driver.refresh()
    page.idle()
    assert page["#at-text"].text == "7 of 14"
    page["#play"].click()
    page.until(lambda: page["#at-text"].text == "14 of 14")
    page["#play"].click()
    page.click("#swap")
    assert page["#shape"].get_attribute("value") == "8"
    assert (page.link["end-shape"], page.link["sample"], page.link["end-sample"]) == ("3", "31", "12")


def test_dice_change_what_they_say(page: Page, demo: Running) -> None:
    page.open(demo.http, LINK)
    page.click("#dice")
    assert page.link["sample"] != "12"
    assert page.link["shape"] == "3"
    page.click("#draw")
    page.click("#tab-path")
    page.click("#end-dice")
    assert page.problem == ""


@pytest.mark.parametrize(
    ("link", "message"),
    [
        ("#shape=99", "sample: shape is 99, expected 0..9."),
        ("#texture=beige", "sample: texture is 'beige', expected"),
        ("#seed=-1", "read 'seed': "),
        ("#seed=18446744073709551616", "read 'seed': a value is beyond what UINT64 holds."),
        ("#sample=many", "read 'start': value 0 is 'many', expected INT64."),
        ("#view=path&frames=1", "interpolate: frames is 1, expected an int of at least 2."),
        ("#view=path&frames=100000", "infer: count is 100000, expected 0..4096."),
    ],
)
def test_refusals_are_shown_as_the_server_words_them(
    page: Page, demo: Running, link: str, message: str
) -> None:
    page.open(demo.http, link)
    assert page.problem.startswith(message)
    assert not page["#save-image"].is_enabled()  # what it would save is another setting's
    assert not page["#save-sheet"].is_enabled()
    page.open(demo.http, LINK)
    assert page.problem == ""


def test_a_refusal_goes_when_it_is_mended(page: Page, demo: Running) -> None:
    page.open(demo.http, LINK + "&view=path")
    page.type("#frames", "1")
    assert "frames is 1" in page.problem
    page.type("#frames", "3")
    assert page.problem == ""
    assert len(page.all("#steps button")) == 3


def test_a_server_that_went(page: Page, demo_plan: Path) -> None:
    with running(Service(generator(demo_plan), NAME)) as server:
        page.open(server.http, LINK)
    page.click("#dice")
    assert page.problem == "The server does not answer. Is it running?"
    assert "ERR_CONNECTION_REFUSED" in "".join(page.console())


def test_a_token_is_asked_for_and_kept_in_memory_alone(page: Page, demo_plan: Path) -> None:
    with running(Service(generator(demo_plan), NAME, token="open-sesame")) as server:
        page.open(server.http, LINK)
        assert page.problem == "authorize: token is missing or wrong, expected the server's bearer token."
        assert not page["#page"].is_displayed()
        page.type("#token", "wrong")
        page.until(lambda: page.problem)
        page.type("#token", "open-sesame")
        page.until(lambda: page["#page"].is_displayed())
        page.idle()
        assert page.problem == ""
        kept = (
            "return JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie, location.href])"
        )
        assert "sesame" not in page.script(kept)


def test_what_is_superseded_is_given_up(page: Page, demo_plan: Path) -> None:
    gate = Gate()
    gate.open.set()
    found = generator(demo_plan)
    gate.hold(found)
    log = io.StringIO()
    with running(Service(found, NAME, log=Log(log)), log) as server:
        page.open(server.http, LINK)
        gate.open.clear()
        for _ in range(4):
            page["#dice"].click()
            time.sleep(0.2)
        last = page.link["sample"]
        until(lambda: sum(event["outcome"] == "cancelled" for event in server.events("infer")) >= 3)
        gate.open.set()
        page.idle()
        assert page.link["sample"] == last
        expected = image(generator(demo_plan), 3, 4, 5, sample=int(last), seed=7)
        np.testing.assert_array_equal(shown(page, "#picture-composite"), expected)


def test_a_thousand_classes_stay_usable(page: Page, root: Path, tmp_path: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    plan = imagenet_sized(root, tmp_path / "imagenet.plan")
    with running(Service(generator(plan), "imagenet")) as server:
        page.open(server.http)
        page["#texture"].click()
        assert len(page.all("#texture-list [role=option]")) == 1000
        page["#texture"].send_keys("elephant")
        found = [option.text for option in page.all("#texture-list [role=option]")]
        assert any("Indian elephant" in text for text in found)
        assert 1 < len(found) < 10
        place = next(k for k, text in enumerate(found) if "Indian elephant" in text)
        page["#texture"].send_keys(Keys.ARROW_DOWN * place, Keys.ENTER)
        page.idle()
        assert page["#texture"].get_attribute("value") == "Indian elephant"
        assert page.link["texture"] == "385"
        page["#texture"].send_keys("nothing of the kind")
        assert page["#texture-list"].text == "No class is called so."
        page["#texture"].send_keys(Keys.ESCAPE)
        assert page["#texture"].get_attribute("value") == "Indian elephant"
        page.type("#shape", "207")  # by number
        assert page["#shape"].get_attribute("value") == "golden retriever"

        page.click("input[name=free][value=shape]")
        assert page["#page-text"].text == "204\u2013215 of 1000"
        assert page.all("#variants button")[3].get_attribute("aria-current") == "true"
        page.click("#page-on")
        assert page["#page-text"].text == "216\u2013227 of 1000"
        assert len(page.all("#variants button")) == 12
        before = shown(page, "#picture-composite")
        page.slide("#truncation", 1)
        assert (page.link["truncation"], page["#truncation-value"].text) == ("1", "1.00")
        assert (shown(page, "#picture-composite") != before).any()


@pytest.mark.parametrize("dark", [False, True])
def test_a_phone_needs_no_scrolling_sideways(page: Page, demo: Running, dark: bool) -> None:
    page.emulate(360, 740, mobile=True, dark=dark)
    for view in ("vary", "path"):
        page.open(demo.http, f"{LINK}&view={view}")
        assert page.script("return document.documentElement.scrollWidth") <= 360
        low = page.script("return getComputedStyle(document.body).backgroundColor")
        assert (max(int(part) for part in low[4:-1].split(",")) < 60) == dark


def test_everything_has_a_name_for_screen_readers_and_a_place_for_the_keyboard(
    page: Page, demo: Running
) -> None:
    from selenium.webdriver.common.keys import Keys

    for view in ("vary", "path"):
        page.open(demo.http, f"{LINK}&view={view}")
        controls: list[Any] = [
            (role, name)
            for role, name in page.accessible()
            if role in ("button", "combobox", "spinbutton", "slider", "radio", "tab", "tabpanel", "image")
        ]
        assert len(controls) > 15
        assert [role for role, name in controls if not name] == []
        met = set()
        for _ in range(60):
            page.script("return document.activeElement").send_keys(Keys.TAB)
            met.add(page.script("return document.activeElement.id"))
        assert {"shape", "sample", "dice", "seed", "draw", "save-image", f"tab-{view}", "save-sheet"} <= met
        assert {"vary": set(), "path": {"end-shape", "frames", "at", "play", "swap"}}[view] <= met
