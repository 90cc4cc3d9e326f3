"""The pictures of a race: the page in a real browser, the GIF frame by frame."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from browser import CHROMIUM, Page

from gradwise.figures import TEMPLATE
from gradwise.lab import animation
from gradwise.lab.animation import PillowMissing, need_pillow, write_gif
from gradwise.lab.pictures import fields, looks, race_figure, relief, shown_steps
from gradwise.lab.race import RULES, Race, race
from gradwise.lab.surfaces import SURFACES
from gradwise.report.race import write_race_html, write_race_json

RATES = {"sgd": 0.1, "adam": 0.1, "adagrad": 0.3}
STEPS = 40


@pytest.fixture(scope="module")
def over() -> Race:
    """Two rules at rates given by hand, one at a range test's and the textbook's."""
    rates = {rule: RATES[rule] for rule in ("sgd", "adam")}
    return race(SURFACES["wells"], ["sgd", "adam", "adagrad"], rates=rates, steps=STEPS, budget=240)


@pytest.fixture(scope="module")
def page(over: Race, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    path = tmp_path_factory.mktemp("race") / "race.html"
    write_race_html(path, over.to_json(), [(field.title, race_figure(over, field)) for field in fields(over)])
    with Page(path) as opened:
        opened.until("document.querySelectorAll('.figure .updatemenu-button').length >= 4")
        yield opened


# The traces of the first figure: what it shows now, as numbers.
HEADS = """
JSON.stringify([...document.querySelectorAll('.figure')][0].data
    .filter(t => t.mode == 'markers' && t.legendgroup && t.showlegend).map(t => [t.name, t.x[0], t.y[0]]))
"""
STEP = "document.querySelectorAll('.figure')[0].querySelector('.slider-label').textContent"
RELIEF = "document.querySelectorAll('.figure')[0].querySelectorAll('.contourlayer path').length"
# Where the k-th head drawn lies within its figure.
SEEN = """
(() => { const f = document.querySelectorAll('.figure')[0], a = f.getBoundingClientRect();
    const r = f.querySelectorAll('.scatterlayer .points path')[%d].getBoundingClientRect();
    return [Math.round(r.x - a.x), Math.round(r.y - a.y)]; })()
"""


def heads(page: Page) -> dict[str, list[float]]:
    return {name.split(" ")[0]: place for name, *place in json.loads(page.value(HEADS))}


def press(page: Page, label: str) -> None:
    """Click a button of the first figure with the mouse, where it stands on the screen."""
    place = page.value(
        "(() => { const b = [...document.querySelectorAll('.figure')[0].querySelectorAll('.updatemenu-button')]"
        f".find(b => b.textContent.includes({label!r})); b.scrollIntoView({{block: 'center'}});"
        " const r = b.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; })()"
    )
    page.click(*place)


def test_the_animation_plays_in_a_browser(page: Page, over: Race) -> None:
    start = heads(page)
    assert set(start) == {"sgd", "adam", "adagrad"}
    assert all(place == pytest.approx(over.surface.start, abs=1e-3) for place in start.values())
    drawn = page.value("document.querySelectorAll('.figure')[0].querySelectorAll('.scatterlayer .points path').length")
    assert drawn >= 2 * len(start), "a head in each panel"
    relief_before = page.value(RELIEF)
    before = [page.value(SEEN % k) for k in range(drawn)]

    press(page, "Play")
    page.until(f"JSON.parse({HEADS}).some(h => Math.abs(h[1] - {over.surface.start[0]}) > 0.05)")
    page.until(f"{STEP}.includes('step {STEPS}')")
    ends = heads(page)
    for lane in fields(over)[0].lanes:
        assert ends[lane.rule] == pytest.approx(lane.path[0, -1].tolist(), abs=1e-3)
    after = [page.value(SEEN % k) for k in range(drawn)]
    assert sum(a != b for a, b in zip(before, after, strict=True)) >= 2 * len(start), "what is drawn has moved as well"
    assert page.value(RELIEF) == relief_before > 10, "the map is still there"
    press(page, "Pause")
    assert page.errors == []


def test_the_slider_goes_to_a_step(page: Page, over: Race) -> None:
    x, y, width, height = page.value(
        "(() => { const r = document.querySelectorAll('.figure')[0].querySelector('.slider-rail-touch-rect');"
        " r.scrollIntoView({block: 'center'}); const b = r.getBoundingClientRect();"
        " return [b.x, b.y, b.width, b.height]; })()"
    )
    page.click(x + 0.25 * width, y + height / 2)
    page.until(f"!{STEP}.includes('step {STEPS}') && !{STEP}.endsWith('step 0')")
    step = int(page.value(STEP).split()[-1])
    assert step == pytest.approx(0.25 * STEPS, abs=2)
    place = over.lanes[0].path[0, step]
    page.until(f"JSON.parse({HEADS}).some(h => Math.hypot(h[1] - {place[0]}, h[2] - {place[1]}) < 2e-3)")
    assert page.errors == []


def test_the_page_fits_its_window_and_loads_nothing(page: Page) -> None:
    assert page.value("document.documentElement.scrollWidth <= innerWidth")
    assert page.value("performance.getEntriesByType('resource').length") == 0
    text = page.value("document.body.innerText")
    assert "At the rates that range tests find" in text
    assert re.search(r"adagrad\s+0\.01\s+textbook", text)
    assert page.errors == []


def test_frames_hold_the_path(over: Race) -> None:
    figure = race_figure(over, fields(over)[0])
    assert [frame.name for frame in figure.frames] == [str(k) for k in range(STEPS + 1)]
    lanes = fields(over)[0].lanes
    for k in (0, 13, STEPS):
        trails, moved = figure.frames[k].data[::3], figure.frames[k].data[1::3]
        for lane, trail, head in zip(lanes, trails, moved, strict=True):
            assert np.array(trail.x) == pytest.approx(lane.path[0, : k + 1, 0], abs=1e-3)
            assert (head.x[0], head.y[0]) == pytest.approx(tuple(lane.path[0, k]), abs=1e-3)
    assert figure.layout.template.layout.paper_bgcolor == TEMPLATE["layout"]["paper_bgcolor"]


def test_a_long_race_is_shown_in_few_frames() -> None:
    assert shown_steps(10, 100) == list(range(11))
    steps = shown_steps(1234, 100)
    assert (steps[0], steps[-1]) == (0, 1234)
    assert len(steps) <= 101


def test_no_two_rules_look_alike(over: Race) -> None:
    lanes = [over.lanes[0].__class__(**{**vars(over.lanes[0]), "rule": rule}) for rule in RULES]
    several = Race(over.surface, over.steps, over.goal, tuple(lanes))
    assert len(set(looks(several).values())) == len(RULES)


@pytest.mark.parametrize("name", SURFACES)
def test_the_relief_uses_its_whole_range(name: str, over: Race) -> None:
    _, _, heights = relief(Race(SURFACES[name], 10, 0.0, over.lanes), 40, 30)
    assert (heights.min(), heights.max()) == pytest.approx((0, 1))
    assert 0.05 < np.median(heights) < 0.95, "most of the map would be of one shade"


def test_given_rates_are_shown_once(over: Race) -> None:
    given = race(SURFACES["wells"], ["sgd"], rates={"sgd": 0.1}, steps=10)
    assert [field.title for field in fields(given)] == ["at the rates given"]
    assert [len(field.lanes) for field in fields(over)] == [3, 3]


def test_the_gif_moves(over: Race, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow isn't installed: pip install 'gradwise[lab]'")
    path = tmp_path / "race.gif"
    write_gif(path, over)
    assert path.stat().st_size < 400_000
    with image.open(path) as gif:
        assert gif.info["loop"] == 0
        assert gif.n_frames == len(shown_steps(STEPS, animation.FRAMES))
        frames, durations = [], []
        for k in range(gif.n_frames):
            gif.seek(k)
            durations.append(gif.info["duration"])
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert {frame.shape for frame in frames} == {frames[0].shape}
    assert set(durations[:-1]) == {80}
    assert durations[-1] > 1000, "the end stands for a while"
    changed = [int((np.abs(a - b).max(-1) > 30).sum()) for a, b in pairwise(frames)]
    assert min(changed) > 0, "each frame differs from the one before, if only by its number"
    assert max(changed) < 0.2 * frames[0][..., 0].size, "and most of the picture stands still"
    # The first map's racers are at the start in the first picture, and trails of their colours end at the lowest point.
    corner, size = (12, 46), (360, 300)
    for lane in fields(over)[0].lanes:
        colour = [int(looks(over)[lane.rule][0][k : k + 2], 16) for k in (1, 3, 5)]
        near = np.abs(frames[-1] - colour).max(-1) < 40
        inside = near[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]]
        early = np.abs(frames[0] - colour).max(-1) < 40
        assert inside.sum() > early[corner[1] : corner[1] + size[1], corner[0] : corner[0] + size[0]].sum() + 50, (
            lane.rule
        )


def test_without_pillow_one_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "PIL", None)
    with pytest.raises(PillowMissing, match=r"pip install 'gradwise\[lab\]'"):
        need_pillow()


def test_json_has_every_path(over: Race, tmp_path: Path) -> None:
    write_race_json(tmp_path / "race.json", over.to_json())
    report = json.loads((tmp_path / "race.json").read_text())
    assert np.array(report["lanes"][0]["path"]) == pytest.approx(over.lanes[0].path)
