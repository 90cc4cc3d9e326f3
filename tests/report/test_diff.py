"""Remedies as diffs of the user's file: each is applied and the result held against what it should read."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy, Where
from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place, Recording, RunInfo
from gradwise.report.diff import diff_of, with_diffs
from gradwise.schedules import cosine


def place(source: str, mark: str) -> Place:
    """The line that holds `mark`."""
    lines = source.splitlines()
    number = next(k for k, line in enumerate(lines) if mark in line)
    return Place("train.py", number + 1, "", lines[number].strip()[:200])


def diff(tmp_path: Path, source: str, change: Intervention, kind="SGD", mark="SGD(", about=None, **group) -> str:
    """The diff for an optimizer made at the line with `mark`."""
    (tmp_path / "train.py").write_bytes(source.encode())
    stepped = place(source, ".step(") if ".step(" in source else None
    optimizer = OptimizerInfo(0, kind, {}, ({"lr": 0.1, **group},), (), place(source, mark), stepped)
    return diff_of(change, optimizer, place(source, about) if about else None, str(tmp_path))


def applied(tmp_path: Path, text: str) -> str:
    """The file after `patch` has applied a diff."""
    done = subprocess.run(["patch", "-p0", "--binary"], cwd=tmp_path, input=text.encode(), capture_output=True)
    assert done.returncode == 0, done.stdout
    return (tmp_path / "train.py").read_bytes().decode()


SCALE = Intervention(lr_scale=0.03)


@pytest.mark.parametrize(
    ("line", "edited"),
    [
        ("opt = torch.optim.SGD(model.parameters(), lr=5.0)", "opt = torch.optim.SGD(model.parameters(), lr=0.15)"),
        ("opt = SGD(net.parameters(), 5.0, momentum=0.9)", "opt = SGD(net.parameters(), 0.15, momentum=0.9)"),
        ("opt = SGD(net.parameters(), lr=args.lr)", "opt = SGD(net.parameters(), lr=args.lr * 0.03)"),
        ("opt = SGD(net.parameters(), lr=0.5 * k)", "opt = SGD(net.parameters(), lr=(0.5 * k) * 0.03)"),
        ("opt = SGD(net.parameters())", "opt = SGD(net.parameters(), lr=0.15)"),
        ("opt = SGD(net.parameters(),)", "opt = SGD(net.parameters(), lr=0.15,)"),
        ("é = 'é'; opt = SGD(params['é'], lr=5e0)  # ü", "é = 'é'; opt = SGD(params['é'], lr=0.15)  # ü"),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.skipif(shutil.which("patch") is None, reason="patch applies the diffs")
def test_the_rate_where_it_stands(tmp_path, line, edited, end):
    source = f"import torch{end}{line}{end}opt.step(){end}"
    text = diff(tmp_path, source, SCALE, lr=5.0)
    assert applied(tmp_path, text) == source.replace(line, edited)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (Intervention(momentum=0.5), "    betas=(0.5, 0.99),\n"),
        (Intervention(eps=1e-3), "    betas=(0.9, 0.99), eps=0.001,\n"),
        (Intervention(lr_scale=10.0), "    lr=0.1,\n"),
        (Intervention(lr_scale=10.0, eps=1e-3), "    lr=0.1,\n"),
        (Intervention(decay_scale=0.0), "    betas=(0.9, 0.99), weight_decay=0.0,\n"),
    ],
)
def test_arguments_of_a_call_over_several_lines(tmp_path, change, expected):
    source = "opt = torch.optim.Adam(\n    model.parameters(),\n    lr=1e-2,\n    betas=(0.9, 0.99),\n)\n"
    text = diff(tmp_path, source, change, "Adam", "Adam(", lr=1e-2, betas=[0.9, 0.99], weight_decay=0.1)
    assert "+" + expected in text
    assert text.startswith("--- train.py\n+++ train.py\n@@ ")


LOOP = "opt = SGD(p, lr=0.1)\nfor x in data:\n    loss(x).backward()\n    opt.step()  # go\n"


def test_lines_beside_the_step(tmp_path):
    assert "+    opt.zero_grad()\n" in diff(tmp_path, LOOP, Intervention(fixes=("zero-grad",)))
    clipped = diff(tmp_path, LOOP, Intervention(clip_norm=1.0))
    assert (
        '+    torch.nn.utils.clip_grad_norm_([p for g in opt.param_groups for p in g["params"]], 1.0)\n     opt.step()'
        in clipped
    )


def test_loaders(tmp_path):
    source = LOOP + "loader = DataLoader(rows, batch_size=8, shuffle=False)\n"
    text = diff(tmp_path, source, Intervention(fixes=("shuffle",)), about="DataLoader")
    assert "+loader = DataLoader(rows, batch_size=8, shuffle=True)\n" in text


@pytest.mark.parametrize(
    ("source", "change"),
    [
        (LOOP, Intervention(schedule=cosine(10))),  # no change of a line
        (LOOP, Intervention(lr_scale=0.1, init="he")),  # only part of it is
        (LOOP.replace("    opt.step()", "    x = opt.step()"), Intervention(fixes=("zero-grad",))),
        (LOOP.replace("opt.step()", "opt.step(); n += 1"), Intervention(fixes=("zero-grad",))),
        (LOOP.replace("lr=0.1", "**settings"), Intervention(lr_scale=0.1)),
        (LOOP.replace("lr=0.1", "lr=0.7"), Intervention(lr_scale=0.1)),  # not the rate that was used
        (LOOP.replace("lr=0.1)", "lr=0.1), SGD(q, lr=0.1)"), Intervention(lr_scale=0.1)),
        (LOOP.replace("lr=0.1", "lr=0.1, momentum=m"), Intervention(momentum=0.5)),
        (LOOP.replace("SGD(p, lr=0.1)", "make(SGD)  # SGD("), Intervention(lr_scale=0.1)),
    ],
)
def test_what_is_no_change_of_a_line_has_no_diff(tmp_path, source, change):
    mark = "SGD(" if "SGD(" in source else "make("
    assert diff(tmp_path, source, change, mark=mark) == ""


def test_groups_have_rates_of_their_own(tmp_path):
    (tmp_path / "train.py").write_text(LOOP)
    optimizer = OptimizerInfo(0, "SGD", {}, ({"lr": 0.1}, {"lr": 0.2}), (), place(LOOP, "SGD("))
    assert diff_of(SCALE, optimizer, None, str(tmp_path)) == ""


def with_remedy(change: Intervention) -> Diagnosis:
    finding = Finding("lr-too-high", "error", 0.9, Where("train.py", 1), "", {}, (Remedy(change, "do it"),))
    return Diagnosis("", "train.py", (), "sick", (finding,), suspicions=(finding,))


@pytest.mark.parametrize("now", [None, "x = 1\n", "def broken(:\n", b"\xff\xfe\x00"])
def test_a_file_that_is_not_the_one_that_ran_gets_no_diff(tmp_path, now):
    optimizer = OptimizerInfo(0, "SGD", {}, ({"lr": 0.1},), (), place(LOOP, "SGD("))
    recording = Recording(RunInfo("", cwd=str(tmp_path)), (optimizer,))
    if now is not None:
        (tmp_path / "train.py").write_bytes(now if isinstance(now, bytes) else now.encode())
    diagnosis = with_remedy(SCALE)
    assert with_diffs(diagnosis, recording) == diagnosis
    (tmp_path / "train.py").write_text(LOOP)
    for finding in (found := with_diffs(diagnosis, recording)).findings + found.suspicions:
        assert "+opt = SGD(p, lr=0.003)\n" in finding.remedies[0].diff
    assert with_diffs(diagnosis, replace(recording, optimizers=())) == diagnosis
