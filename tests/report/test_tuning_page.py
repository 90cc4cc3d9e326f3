"""A search's HTML report, its figures, and its winner as a diff."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place
from gradwise.report.diff import diff_of_settings
from gradwise.report.pictures import pictures
from gradwise.report.tuning_page import write_tuning_html
from report.test_tuning import report


def trials(count: int, **fixed: Any) -> list[dict[str, Any]]:
    luck = np.random.default_rng(0)
    made = []
    for k in range(count):
        lr = 10 ** -luck.uniform(0, 4)
        config = {"lr": lr, "clip": ["own", 0.5][k % 2], "layers": k % 3, **fixed}
        value = float((np.log10(lr) + 2) ** 2 + 0.1 * luck.standard_normal())
        made.append({"number": k, "config": config, "state": "complete", "value": value, "steps": 9, "seconds": 1.0})
    return made


def full(**changes: Any) -> dict[str, Any]:
    method = {"name": "tpe", "settings": {"n_startup_trials": 8}, "pruning": "none", "pruning_settings": {}, "seed": 0}
    study = {"name": "train-1", "store": "sqlite:///tune.db"}
    return report(**{"method": method, "study": study, "command": ["train.py", "--note", "<b>&"], **changes})


def test_pictures_show_trials_by_their_own_names_and_values() -> None:
    data = full(trials=[*trials(20), {"number": 20, "config": {"lr": 1.0}, "state": "failed", "problem": "no"}])
    made = pictures(data)
    assert len(made) == 4
    (history, _), (importance, _), (parallel, _), (slices, _) = made
    assert list(history.data[0].y) == [t["value"] for t in data["trials"][:20]]
    shares = dict(zip(importance.data[0].y, importance.data[0].x, strict=True))
    assert set(shares) == {"lr", "clip", "layers"}
    assert shares["lr"] == max(shares.values())
    assert len(parallel.data) >= 20  # a line for each trial
    assert len(slices.data) == 3


@pytest.mark.parametrize(
    ("made", "count"), [([], 0), (trials(1), 1), (trials(6, clip="own", layers=1, lr=0.1), 1), (trials(3), 1)]
)
def test_pictures_that_would_say_nothing_are_left_out(made: list[dict[str, Any]], count: int) -> None:
    assert len(pictures(full(trials=made))) == count


def test_more_is_better_in_the_history_too() -> None:
    made = trials(5)
    (history, _), *_ = pictures(full(trials=made, maximize=True))
    assert list(history.data[1].y)[-1] == max(t["value"] for t in made)


def test_the_page_needs_nothing_else_and_shows_foreign_text_as_text(tmp_path: Path) -> None:
    winner = {"changes": "lr ×0.1", "command": "python train.py", "diff": "--- train.py\n+++ train.py\n-<i>\n+1"}
    data = full(winner=winner, trials=[*trials(20), *report()["trials"][2:]], best=3, chosen=3)
    write_tuning_html(tmp_path / "r.html", data, pictures(data))
    text = (tmp_path / "r.html").read_text("utf-8")
    head, _, rest = text.partition("<main")
    body = re.sub(r"<script.*?</script>", "", rest, flags=re.DOTALL)
    for words in (
        "✓ better", "Better than the script&#x27;s own settings in 3 paired runs", "--note &#x27;&lt;b&gt;&amp;&#x27;",
        "-&lt;i&gt;", "n_startup_trials", "0.3", "A note.", "ValueError: no", "test score, read once",
    ):  # fmt: skip
        assert words in body, words
    assert "<b>&" not in body
    assert body.count('<div class="figure"') == 4
    assert "default-src 'none'" in head
    assert not re.search(r"(src|href)=[\"']?https?:", body)


@pytest.mark.parametrize(
    ("changes", "pill"),
    [
        ({"best": None, "chosen": None, "winner": None, "confirmed": None, "test": None, "own": None}, "no value"),
        ({"chosen": None, "winner": None, "confirmed": None}, "not better"),
        ({"confirmed": None}, "· best"),
    ],
)
def test_the_page_says_how_sure_it_is(tmp_path: Path, changes: dict[str, Any], pill: str) -> None:
    write_tuning_html(tmp_path / "r.html", full(**changes), [])
    assert pill in (tmp_path / "r.html").read_text("utf-8").partition("<h1>")[0].partition("<main")[2]


SCRIPT = """import argparse, torch
parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--hidden-units", type=int, default=64)
parser.add_argument("--name", default="a")
parser.add_argument("--momentum", type=float, default=MOMENTUM)
parser.add_argument("--seed", type=int)
args = parser.parse_args()
net = torch.nn.Linear(4, args.hidden_units)
opt = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.5)
opt.step()
"""


def tuned(tmp_path: Path, change: Intervention, defaults: dict[str, Any], script: str = SCRIPT) -> list[str]:
    (tmp_path / "train.py").write_text(script)
    group = {"lr": 0.05, "momentum": 0.5}
    places = [Place("train.py", k, "", script.splitlines()[k - 1].strip()) for k in (10, 11)]
    optimizer = OptimizerInfo(0, "SGD", {}, (group,), (), *places)
    text = diff_of_settings(change, optimizer, defaults, "train.py", str(tmp_path))
    return [line for line in text.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")]


def test_the_winner_as_a_diff(tmp_path: Path) -> None:
    assert tuned(tmp_path, Intervention(lr_scale=12.3456, momentum=0.9), {"--hidden-units": 32}) == [
        '-parser.add_argument("--lr", type=float, default=0.05)',
        '-parser.add_argument("--hidden-units", type=int, default=64)',
        '+parser.add_argument("--lr", type=float, default=0.617)',
        '+parser.add_argument("--hidden-units", type=int, default=32)',
        "-opt = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.5)",
        "+opt = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9)",
    ]
    assert tuned(tmp_path, Intervention(), {"--name": "b", "--seed": 3}) == [
        '-parser.add_argument("--name", default="a")',
        "+parser.add_argument(\"--name\", default='b')",
        '-parser.add_argument("--seed", type=int)',
        '+parser.add_argument("--seed", type=int, default=3)',
    ]


def test_an_option_that_was_set_otherwise_is_not_the_rate(tmp_path: Path) -> None:
    other = SCRIPT.replace("default=0.05", "default=0.5")
    assert tuned(tmp_path, Intervention(lr_scale=2.0), {}, other)[1:] == [
        "+opt = torch.optim.SGD(net.parameters(), lr=args.lr * 2, momentum=0.5)"
    ]


@pytest.mark.parametrize(
    ("change", "defaults"),
    [
        (Intervention(rule="adam"), {}),
        (Intervention(lr_scale=2.0), {"--unknown": 1}),
        (Intervention(), {"--momentum": 0.9}),  # computed: what it is elsewhere isn't known here
        (Intervention(lr_scale=2.0, dropout=0.1), {}),
        (Intervention(), {}),
    ],
)
def test_no_diff_where_not_all_of_it_is_one(tmp_path: Path, change: Intervention, defaults: dict[str, Any]) -> None:
    assert tuned(tmp_path, change, defaults) == []
