"""The page to listen to: its words, its links and its size, and how it works in a real browser."""

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile

from irmas_dataset.files import to_text
from irmas_dataset.html_page import address_of
from irmas_recipe.report.page import summary, write_page
from irmas_recipe.report.text import clock_step
from irmas_recipe.report.view import as_html, view_of
from tests.browser import Browser, needs_browser

LABELS = ["cello", "piano", 'a<b> & "c"']
THRESHOLDS = dict(zip(LABELS, (0.5, 0.4, 0.5), strict=True))
SECONDS = 8.0
STRANGE_NAMES = (
    b"<script>document.title='owned'<%2fscript>.wav", b"100% #1?a=b&c.wav", b"\"two\" 'one' `x` {{ 7*7 }}.wav",
    "música – 音楽.wav".encode(), b"caf\xe9.wav", b"a:b.wav", b"--\n-.wav", b"javascript:alert(1).wav",
)  # fmt: skip


def segment(label: str, start: float, end: float, score: float = 0.8) -> dict:
    return {"label": label, "start_seconds": start, "end_seconds": end, "score": score, "confidence": score}


def result(*timeline: dict, **more: object) -> dict:
    scores = {label: [0.1, 0.3] for label in LABELS}
    confidences = dict(zip(LABELS, ([0.1, 0.2], [0.1, 0.4], [0.1, 0.2]), strict=True))
    entries = []
    for label, score in zip(LABELS, (0.6, 0.3, 0.2), strict=True):
        seconds = sum(part["end_seconds"] - part["start_seconds"] for part in timeline if part["label"] == label)
        entries.append(
            {"label": label, "score": score, "confidence": score, "seconds": seconds, "share": seconds / SECONDS}
        )
    activity = {"edges_seconds": [0, 4, 8], "scores": scores, "confidences": confidences, "thresholds": THRESHOLDS}
    return {
        "duration_seconds": SECONDS, "rule": "clip", "instruments": entries, "timeline": list(timeline),
        "activity": activity,
    } | more  # fmt: skip


CELLO_THEN_PIANO = result(segment("cello", 1.0, 4.0), segment("piano", 6.0, 8.0))


def view(found: dict = CELLO_THEN_PIANO, heard: tuple[str, ...] = ("cello",)) -> dict:
    return view_of(found, heard)


@pytest.fixture
def music(tmp_path) -> dict[str, dict]:
    """Real files under names that break careless pages: path -> view."""
    folder = os.fsencode(tmp_path / "music")
    os.mkdir(folder)
    views = {}
    for name in STRANGE_NAMES:
        path = os.path.join(folder, name)
        soundfile.write(path, np.random.default_rng(0).normal(0, 0.1, int(8_000 * SECONDS)), 8_000)
        views[to_text(os.fsdecode(path))] = view()
    return views


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def open_page(browser: Browser, page: Path, **window: object) -> None:
    browser.requests.clear()
    browser.open(page.as_uri(), **window)


PLAYING = "[...document.querySelectorAll('audio')].filter(player => !player.paused && player.currentTime > 0)"


def test_a_view_has_what_was_heard_first_and_then_what_is_heard_for_moments():
    cello, piano = view()["instruments"]
    assert (cello["label"], cello["is_heard"], cello["seconds"], cello["share"]) == ("cello", True, 3.0, 0.375)
    assert (piano["label"], piano["is_heard"], piano["score"]) == ("piano", False, 0.3)
    assert piano["segments"] == [[6.0, 8.0, 0.8]]


def test_a_view_has_the_pipelines_seconds_share_and_confidence():
    entry = {"label": "cello", "score": 0.02, "confidence": 0.7, "seconds": 2.5, "share": 0.3}
    found = result(segment("cello", 1.0, 4.0) | {"confidence": 0.9}, rule="timeline") | {"instruments": [entry]}
    shown = view(found)
    (cello,) = shown["instruments"]
    assert (cello["score"], cello["seconds"], cello["share"], cello["segments"][0][2]) == (0.7, 2.5, 0.3, 0.9)
    assert "0.70" in as_html(shown, "a.wav", "a.wav") and "answer by the timeline" in as_html(shown, "a.wav", "a.wav")


def test_nothing_heard_is_said_in_words_with_the_nearest():
    said = "No instrument was heard: none reaches its threshold, which is a confidence of 0.5. The nearest is piano: 0.40 at most."
    assert said in as_html(view(result(), heard=()), "a.wav", "a.wav")
    moments = {label: [0.1, 0.9] for label in LABELS}
    specks = view(result(activity={"scores": moments, "confidences": moments, "thresholds": THRESHOLDS}), heard=())
    assert specks["nothing"] == "No instrument was heard: none reaches its threshold for long enough."
    for_moments = as_html(view(heard=()), "a.wav", "a.wav")
    assert "No instrument was heard in the file as a whole" in for_moments and for_moments.count('class="bar"') == 2
    assert "No instrument" not in as_html(view(), "a.wav", "a.wav")


def test_markup_in_names_labels_and_warnings_is_escaped(tmp_path, music):
    label = LABELS[2]
    strange = view(result(segment(label, 0, 1), warning="<i>warning</i>"), heard=(label,))
    page = write_page(
        tmp_path / "page/index.html", music | {"x": strange}, "<u>model</u>", [("<s>", "<s> is <b>no</b>")]
    )
    html = page.read_text(encoding="utf-8")
    for markup in ("<script>document", "<i>warning", "<u>model", "<s>", "<b>no</b>", "a<b> & "):
        assert markup not in html
    assert html.count("<script>") == 1
    assert "a&lt;b&gt; &amp; &#34;c&#34;" in html and "&lt;s&gt; is &lt;b&gt;no&lt;/b&gt;" in html


def test_an_address_is_relative_where_page_and_music_can_move_together(tmp_path):
    page = tmp_path / "songs" / "page"
    assert address_of(tmp_path / "songs" / "a #1.wav", page) == "../a%20%231.wav"
    assert address_of(page / "in" / "a:b.wav", page) == "in/a%3Ab.wav"
    assert address_of(tmp_path / "100%.wav", page) == f"file://{tmp_path}/100%25.wav"
    assert address_of("/music/a.wav", Path("/page")) == "file:///music/a.wav"


def test_the_summary_counts_files_and_adds_seconds():
    first, second = summary([view(), view(heard=("piano", "cello")), view(heard=())])
    assert first == {"label": "cello", "place": 0, "files": 2, "seconds": 6.0}
    assert second == {"label": "piano", "place": 1, "files": 1, "seconds": 2.0}


def test_no_axis_has_more_parts_than_asked_for():
    assert [clock_step(seconds, 6) for seconds in (0.2, 8, 240, 3_600, 10**6)] == [0.5, 2, 60, 600, 10**6]


@needs_browser
def test_names_of_all_kinds_are_shown_and_their_files_play(browser, tmp_path, music):
    open_page(browser, write_page(tmp_path / "page/index.html", music, "tiny"))
    shown = browser.run("[...document.querySelectorAll('h2')].map(head => head.textContent)")
    assert shown[1:] == [os.path.basename(path) for path in music]
    for number in range(len(music)):
        browser.click(f"article:nth-of-type({number + 1}) .bar")
        browser.wait_for(f"{PLAYING}.includes(document.querySelectorAll('audio')[{number}])")
    browser.wait_for(f"{PLAYING}.length === 1")  # the others stop
    assert not browser.run("document.querySelector('.silent-player')") and not browser.errors
    assert all(address.startswith("file://") for address in browser.requests)


@needs_browser
def test_clicks_and_keys_jump_and_the_playhead_follows(browser, tmp_path, music):
    open_page(browser, write_page(tmp_path / "page/index.html", dict([*music.items()][:1]), "tiny"))
    now = "document.querySelector('audio').currentTime"
    browser.click(".axis", share=0.75)
    assert browser.wait_for(f"{PLAYING}.length && {now}") == pytest.approx(6.0, abs=0.6)
    browser.click(".bar", share=0.5)
    assert browser.wait_for(f"{now} < 5 && {now}") == pytest.approx(2.5, abs=0.6)
    at = "Number(document.querySelector('.view').style.getPropertyValue('--at'))"
    browser.wait_for(f"{at} * {SECONDS} > 2.7")
    browser.run("document.querySelector('audio').pause(); document.querySelectorAll('.bar')[1].focus()")
    browser.press("Enter", 13, "\r")
    assert browser.wait_for(f"{PLAYING}.length && {now} > 5 && {now}") == pytest.approx(6.0, abs=0.6)
    browser.run("document.querySelector('.axis').focus()")
    browser.press("Home", 36)
    browser.wait_for(f"{now} < 2")
    browser.press("ArrowRight", 39)
    browser.wait_for(f"{now} > 4.9")
    browser.press(" ", 32, " ")
    browser.wait_for("document.querySelector('audio').paused")
    assert browser.run("document.querySelector('.axis').ariaValueText") in ("0:05", "0:06", "0:07")


@needs_browser
def test_a_file_that_has_moved_is_told_when_it_is_played(browser, tmp_path):
    open_page(browser, write_page(tmp_path / "page/index.html", {str(tmp_path / "gone.wav"): view()}, "tiny"))
    assert not browser.run("document.querySelector('.silent-player')")
    browser.click(".bar")
    browser.wait_for("document.querySelector('.silent-player')?.textContent.includes('has been moved')")


@needs_browser
@pytest.mark.parametrize("width", [400, 1200])
def test_no_width_needs_scrolling_to_the_side(browser, tmp_path, music, width):
    long_name = {str(tmp_path / ("x" * 200 + ".wav")): view(result(warning="y" * 300), heard=())}
    page = write_page(tmp_path / "page/index.html", music | long_name, "m" * 100, [("z.wav", "z" * 300)])
    open_page(browser, page, width=width)
    assert not browser.scrolls_sideways()
    assert browser.run("Math.min(...[...document.querySelectorAll('.track')].map(track => track.clientWidth))") > 300


@needs_browser
def test_files_are_chosen_by_instrument_and_by_name(browser, tmp_path):
    views = {"both.wav": view(heard=("cello", "piano")), "cello.wav": view(), "none.wav": view(result(), heard=())}
    open_page(browser, write_page(tmp_path / "page/index.html", views, "tiny"))
    shown = "[...document.querySelectorAll('article')].filter(file => !file.hidden).map(file => file.innerText.split('\\n')[0])"
    browser.click("[data-place='0']")
    assert browser.run(shown) == ["both.wav", "cello.wav"]
    browser.click("[data-place='1']")
    assert browser.run(shown) == ["both.wav"]
    assert browser.run("document.querySelector('#shown').textContent") == "1 of 3 files"
    for place in "01":
        browser.click(f"[data-place='{place}']")
    browser.click("[data-place='']")
    assert browser.run(shown) == ["none.wav"]
    browser.click("[data-place='']")
    browser.click("#search")
    browser.press("c", 67, "c")
    assert browser.run(shown) == ["cello.wav"]


@needs_browser
def test_a_thousand_files_of_minutes_make_a_page_that_opens_at_once(browser, tmp_path):
    parts = [segment(LABELS[number % 3], 8 * number, 8 * number + 7) for number in range(30)]
    song = view(result(*parts) | {"duration_seconds": 240.0}, heard=("cello", "piano"))
    page = write_page(tmp_path / "page/index.html", {f"{number}.wav": song for number in range(1_000)}, "tiny")
    assert page.stat().st_size < 8_000_000
    open_page(browser, page)
    loaded = browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
    print(page.stat().st_size, loaded)
    assert 0 < loaded < 5_000 and browser.requests == [page.as_uri()]  # not one of the thousand files
