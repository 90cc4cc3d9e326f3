"""A race as an animated GIF: drawn by Pillow, from the same race and in the same colours as the page."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from gradwise.lab.pictures import Field, fields, looks, relief, result, shown_steps
from gradwise.lab.race import Lane, Race
from gradwise.legible import number

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

FRAMES = 48
_MAP, _LINE, _MARGIN = (360, 300), 17, 12  # pixels
_FINE = 2  # drawn so many times as large, and reduced: Pillow's own lines have stairs
_BANDS, _LIGHT, _DARK = 14, 250, 150  # of the relief: shades of grey
_MILLISECONDS, _LAST = 80, 2500
_CLEAR = 255  # the place in the palette that stands for what was there before
_INK, _SOFT, _PAPER = "#1c2126", "#5c656d", "#ffffff"


class PillowMissing(RuntimeError):
    """Pillow isn't installed."""

    def __init__(self) -> None:
        super().__init__("a GIF is drawn by Pillow, which isn't installed: pip install 'gradwise[lab]'")


def need_pillow() -> None:
    """Make sure that Pillow is there.

    Raises:
        PillowMissing: it isn't; says how to get it.
    """
    try:
        import PIL  # noqa: F401
    except ImportError:
        raise PillowMissing from None


def write_gif(path: str | os.PathLike[str], race: Race) -> None:
    """Write the race as an animated GIF, a map for each field side by side; of each lane the first seed is shown.

    Args:
        path: where to; an existing file is replaced.
        race: the race.

    Raises:
        PillowMissing: Pillow isn't installed.
        OSError: the file cannot be written.
    """
    need_pillow()
    from PIL import Image

    pictures = list(_pictures(race))
    palette = _palette([colour for colour, _ in looks(race).values()])
    frames = [np.asarray(p.quantize(palette=palette, dither=Image.Dither.NONE)).copy() for p in pictures]
    # What stands still is left out of the frames that follow: that makes them small.
    moved = [np.where(now == before, _CLEAR, now) for before, now in pairwise(frames)]
    images = [Image.fromarray(frame.astype(np.uint8), "P") for frame in (frames[0], *moved)]
    for image in images:
        image.putpalette(palette.getpalette() or [])
    lasting = [_MILLISECONDS] * (len(images) - 1) + [_LAST]
    images[0].save(
        path, format="GIF", save_all=True, append_images=images[1:], duration=lasting, loop=0, optimize=False,
        disposal=1, transparency=_CLEAR,
    )  # fmt: skip


def _palette(colours: Sequence[str]) -> Image.Image:
    """Greys, and each colour as it is and half-way into paper and ground: what smooth edges need."""
    from PIL import Image, ImageColor

    wanted = [(v, v, v) for v in range(0, 256, 5)]
    for colour in (*colours, _INK, _SOFT):
        rgb = np.array(ImageColor.getrgb(colour))
        blends = [
            rgb + (behind - rgb) * share for behind in (255, (_LIGHT + _DARK) // 2) for share in (0.25, 0.5, 0.75)
        ]
        wanted += [(int(r), int(g), int(b)) for r, g, b in (rgb, *blends)]
    flat = [v for rgb in wanted[:_CLEAR] for v in rgb]
    palette = Image.new("P", (1, 1))
    palette.putpalette(flat + [0] * (3 * 256 - len(flat)))
    return palette


def _pictures(race: Race) -> Sequence[Image.Image]:
    from PIL import Image

    shown = fields(race)
    ground = _ground(race)
    most = max(len(field.lanes) for field in shown)
    width = len(shown) * (_MAP[0] + _MARGIN) + _MARGIN
    height = 2 * _LINE + 2 * _MARGIN + _MAP[1] + most * _LINE + _MARGIN
    blank = Image.new("RGB", (width * _FINE, height * _FINE), _PAPER)
    corners = [(_MARGIN + k * (_MAP[0] + _MARGIN), 2 * _LINE + _MARGIN) for k in range(len(shown))]
    for corner in corners:
        blank.paste(ground, (corner[0] * _FINE, corner[1] * _FINE))
    made = []
    for step in shown_steps(race.steps, FRAMES):
        picture = blank.copy()
        for field, corner in zip(shown, corners, strict=True):
            _draw_field(picture, race, field, corner, step)
        _Pen(picture, (0, 0)).text(
            (_MARGIN, _MARGIN - 4), f"{race.surface.name}: step {step:,} of {race.steps:,}", _INK
        )
        made.append(picture.reduce(_FINE))
    return made


def _ground(race: Race) -> Image.Image:
    """The relief in bands of grey, low ground light, with its marks."""
    from PIL import Image

    columns, rows = (_FINE * n for n in _MAP)
    _, _, heights = relief(race, columns // 2, rows // 2)
    bands = np.floor(np.clip(heights, 0, 1 - 1e-9) * _BANDS) / (_BANDS - 1)
    shades = (_LIGHT - (_LIGHT - _DARK) * bands).astype(np.uint8)
    ground = Image.fromarray(shades[::-1]).resize((columns, rows), Image.Resampling.BICUBIC).convert("RGB")
    pen = _Pen(ground, (0, 0))
    surface = race.surface
    for place in surface.minima:
        pen.shape("star", _on_map(race, np.array([place]))[0], 7, _PAPER, _SOFT)
    if surface.saddle is not None:
        pen.shape("x", _on_map(race, np.array([surface.saddle]))[0], 5, _SOFT, _SOFT)
    return ground


def _draw_field(picture: Image.Image, race: Race, field: Field, corner: tuple[int, int], step: int) -> None:
    styles = looks(race)
    left, top = corner
    # Trails are drawn on the map's own piece, so that what leaves the map isn't drawn beside it.
    piece = picture.crop((_FINE * left, _FINE * top, _FINE * (left + _MAP[0]), _FINE * (top + _MAP[1])))
    pen = _Pen(piece, (0, 0))
    for lane in field.lanes:
        pen.line(_on_map(race, lane.path[0, : step + 1]), styles[lane.rule][0])
    for lane in field.lanes:
        colour, shape = styles[lane.rule]
        pen.shape(shape, _on_map(race, lane.path[0, step : step + 1])[0], 6, colour, _PAPER)
    picture.paste(piece, (_FINE * left, _FINE * top))
    pen = _Pen(picture, corner)
    pen.text((0, -_LINE - 2), field.title, _SOFT)
    for k, lane in enumerate(field.lanes):
        colour, shape = styles[lane.rule]
        y = _MAP[1] + 8 + k * _LINE
        pen.shape(shape, (7, y + 7), 5, colour, _PAPER)
        pen.text((20, y), f"{lane.rule}  {number(lane.lr, 2)}", _INK)
        pen.text((205, y), _standing(lane, race, step), _SOFT)


def _standing(lane: Lane, race: Race, step: int) -> str:
    """What to say of a lane at a step."""
    arrived = lane.arrivals(race.goal)[0]
    if arrived is not None and step >= arrived:
        return f"there at step {arrived:,}"
    return result(lane, race) if step == race.steps else ""


def _on_map(race: Race, points: Any) -> Any:
    """Points of the surface in the map's pixels, none so far off that drawing would overflow."""
    (left, right), (low, high) = race.surface.x, race.surface.y
    x = (points[:, 0] - left) / (right - left) * _MAP[0]
    y = (high - points[:, 1]) / (high - low) * _MAP[1]
    return np.clip(np.stack((x, y), 1), -1e4, 1e4)


class _Pen:
    """Draws on a picture that is `_FINE` times as large, in pixels of the reduced one, from a corner."""

    def __init__(self, picture: Image.Image, corner: tuple[int, int]) -> None:
        from PIL import ImageDraw

        self._draw: ImageDraw.ImageDraw = ImageDraw.Draw(picture)
        self._corner = np.array(corner)

    def _at(self, points: Any) -> list[tuple[float, float]]:
        return [(float(x), float(y)) for x, y in (np.asarray(points, float) + self._corner) * _FINE]

    def line(self, points: Any, colour: str) -> None:
        """A line through all points."""
        if len(points) > 1:
            self._draw.line(self._at(points), fill=colour, width=2 * _FINE, joint="curve")

    def text(self, place: tuple[float, float], words: str, colour: str) -> None:
        """Words, from their upper left corner."""
        from PIL import ImageFont

        self._draw.text(self._at([place])[0], words, fill=colour, font=ImageFont.load_default(12 * _FINE))

    def shape(self, name: str, place: Any, size: float, colour: str, edge: str) -> None:
        """One of Plotly's marker symbols."""
        outline = np.array([(x * size + place[0], y * size + place[1]) for x, y in _outline(name)])
        self._draw.polygon(self._at(outline), fill=colour, outline=edge, width=_FINE)


def _outline(name: str) -> list[tuple[float, float]]:
    """A symbol's corners about (0, 0), y downwards."""
    if name in ("x", "cross"):
        arm = 0.35
        plus = [(arm, -1), (arm, -arm), (1, -arm), (1, arm), (arm, arm), (arm, 1), (-arm, 1), (-arm, arm), (-1, arm),
                (-1, -arm), (-arm, -arm), (-arm, -1)]  # fmt: skip
        turn = np.pi / 4 if name == "x" else 0.0
        return [(x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)) for x, y in plus]
    corners, turned = {
        "square": (4, 0.5), "diamond": (4, 0.0), "triangle-up": (3, 0.0), "triangle-down": (3, 0.5), "star": (10, 0.0),
        "pentagon": (5, 0.0), "hexagon": (6, 0.0),
    }.get(name, (40, 0.0))  # fmt: skip
    angles = -np.pi / 2 + 2 * np.pi * (np.arange(corners) + turned) / corners
    radii = np.where(np.arange(corners) % 2, 0.5, 1.15) if name == "star" else np.full(corners, 1.15)
    return [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)]
