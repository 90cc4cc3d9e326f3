"""What a search of `gradwise tune` leaves behind: its winner as a diff, its reports."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from gradwise.cli.common import say

if TYPE_CHECKING:
    from gradwise.search.domains import Value
    from gradwise.search.protocol import Found
    from gradwise.search.scripted import Scripted


def with_diff(report: dict[str, Any], found: Found, scripted: Scripted) -> None:
    """Add the winner as a diff of the script, where all of it is a literal or an argument there; else ""."""
    chosen, task = found.chosen, scripted.task
    if chosen is None:
        return
    from gradwise.report.diff import diff_of_settings
    from gradwise.search.jobs import Job

    report["winner"]["diff"] = ""
    target, facts = task.target, task.facts
    defaults = _defaults(found, scripted)
    if defaults is None or target.module or facts is None:
        return
    change = scripted.change(Job("", chosen.config), 0 if chosen.result is None else chosen.result.steps)
    report["winner"]["diff"] = diff_of_settings(change, facts.optimizer, defaults, target.script, target.cwd)


def _defaults(found: Found, scripted: Scripted) -> dict[str, Value] | None:
    """The options that the winner sets, as defaults; None where one is given otherwise than as `--option value`."""
    task, defaults = scripted.task, dict[str, Any]()
    assert found.chosen is not None
    given = {word.partition("=")[0] for word in task.target.argv}
    for parameter in task.space.parameters:
        if parameter.template is None or parameter.name not in found.chosen.config:
            continue
        option, _, rest = parameter.template.partition(" ")
        if rest != "{}" or not option.startswith("-") or option in given:
            return None
        defaults[option] = found.chosen.config[parameter.name]
    return defaults


def written(report: dict[str, Any], html: Path | None, json: Path | None) -> None:
    """Write what was asked for; an obstacle is said, and ends nothing."""
    from gradwise.report.tuning import write_tuning_json

    try:
        if json:
            write_tuning_json(json, report)
        if html:
            from gradwise.report.pictures import pictures
            from gradwise.report.tuning_page import write_tuning_html

            write_tuning_html(html, report, pictures(report))
    except OSError as error:
        say(f"cannot write {error.filename}: {error.strerror}")
