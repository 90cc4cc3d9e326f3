"""`gradwise race`: update rules side by side on a surface, as a table, a page and a GIF."""

from __future__ import annotations

import io
import math
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from gradwise.cli.common import refuse, say, speaking_plainly, writable


def race(
    surface: Annotated[
        str,
        typer.Argument(
            metavar="SURFACE",
            help="A surface by name (--list), or a function of yours: FILE.py:FUNCTION or MODULE:FUNCTION.",
        ),
    ] = "saddle",
    rules: Annotated[
        str | None,
        typer.Option(metavar="RULE,…", help="Which rules race.", show_default="sgd, … and adam: seven of them"),
    ] = None,
    lr: Annotated[
        list[str] | None,
        typer.Option(metavar="RULE=RATE", help="A rate by hand, in place of the range test's and the textbook's."),
    ] = None,
    steps: Annotated[int, typer.Option(metavar="N", min=10, help="The length of the race.")] = 200,
    start: Annotated[
        str | None, typer.Option(metavar="X,Y", help="Where to start.", show_default="the surface's own")
    ] = None,
    view: Annotated[
        str | None, typer.Option(metavar="X0,X1,Y0,Y1", help="The map.", show_default="the surface's own")
    ] = None,
    seeds: Annotated[
        int, typer.Option(metavar="N", min=1, help="Race from N starts: further ones lie scattered about the first.")
    ] = 1,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an animation to play, as one HTML file.")
    ] = None,
    gif: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the animation as a GIF.")] = None,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="Write all paths and results as JSON.")] = None,
    known: Annotated[bool, typer.Option("--list", help="List the surfaces and the rules, and race nothing.")] = False,
) -> None:
    """Race update rules on a surface.

    Each rule runs at the rate that a range test finds for it, and again at the rate textbooks begin with.
    """
    with speaking_plainly():
        if known:
            _list()
            return
        for path, option in ((html, "--html"), (gif, "--gif"), (json, "--json")):
            writable(path, option)
        _race(surface, rules, lr or [], steps, _numbers(start, 2, "--start"), _numbers(view, 4, "--view"), seeds,
              html, gif, json)  # fmt: skip


def _race(
    name: str, rules: str | None, lr: list[str], steps: int, start: list[float] | None, view: list[float] | None,
    seeds: int, html: Path | None, gif: Path | None, json: Path | None,
) -> None:  # fmt: skip
    from gradwise.lab import race as lab
    from gradwise.lab.animation import PillowMissing, need_pillow, write_gif
    from gradwise.lab.data import DataError
    from gradwise.lab.pictures import fields, race_figure
    from gradwise.lab.surfaces import surface
    from gradwise.report.live import LiveLine
    from gradwise.report.race import render_race, write_race_html, write_race_json

    try:
        if gif:
            need_pillow()
        x, y = ((view[0], view[1]), (view[2], view[3])) if view else (None, None)
        rates = _rates(lr)
        wanted = [rule.strip() for rule in rules.split(",")] if rules else [*dict.fromkeys((*lab.USUAL, *rates))]
        lab.check(wanted, rates, steps, seeds)
        with LiveLine() as line:
            line.update("making the surface")
            where = surface(name, x, y, (start[0], start[1]) if start else None)
            over = lab.race(where, wanted, rates=rates, steps=steps, seeds=seeds, progress=line.update)
    except (ValueError, PillowMissing, DataError) as error:
        refuse(str(error))
    report = over.to_json()
    try:
        if json:
            write_race_json(json, report)
        if html:
            write_race_html(html, report, [(field.title, race_figure(over, field)) for field in fields(over)])
        if gif:
            write_gif(gif, over)
    except OSError as error:
        say(f"cannot write {error.filename}: {error.strerror}")
    with suppress(BrokenPipeError):
        render_race(report)


def _rates(given: list[str]) -> dict[str, float]:
    rates = {}
    for each in given:
        rule, _, rate = each.partition("=")
        try:
            rates[rule.strip()] = float(rate)
        except ValueError:
            refuse(f"--lr takes RULE=RATE, such as adam=0.1, not {each!r}")
    return rates


def _numbers(text: str | None, count: int, option: str) -> list[float] | None:
    if text is None:
        return None
    try:
        numbers = [float(word) for word in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        refuse(f"{option} takes {count} numbers with commas between them, not {text!r}")
    return numbers


def _list() -> None:
    from gradwise.lab.race import RULES, USUAL
    from gradwise.lab.surfaces import NETWORKS, SURFACES

    page = io.StringIO()
    print("surfaces:", file=page)
    about = {name: f"{s.text}; {s.source}" for name, s in SURFACES.items()} | NETWORKS
    for name, words in about.items():
        print(f"  {name:14} {words}", file=page)
    print("rules (textbook rate), those with * by default:", file=page)
    for name, racer in RULES.items():
        print(f"  {name + ' *' * (name in USUAL):22} {racer.textbook:g}", file=page)
    with suppress(BrokenPipeError):
        typer.echo(page.getvalue(), nl=False)
