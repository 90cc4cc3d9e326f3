import io
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from samples import ALL, CHECKLIST, RUN, diagnosis, falling, lr_too_high, recording
from strategies import diagnoses

from gradwise.diagnosis.findings import Finding, Where
from gradwise.report.terminal import MOST_LINES, render


class Stream(io.StringIO):
    """A stream with an encoding, as standard error has one."""

    def __init__(self, encoding: str) -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:
        return self._encoding


def page(sample, width=80, encoding="utf-8", **options) -> list[str]:
    stream = Stream(encoding)
    render(*sample, Console(file=stream, width=width), **options)
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
@pytest.mark.parametrize("width", [40, 60, 80, 120, 250])
def test_every_page_fits_and_does_nothing_to_the_terminal(name, width, encoding):
    lines = page(ALL[name](), width, encoding)
    assert len(lines) <= MOST_LINES
    text = "\n".join(lines)
    text.encode("utf-8" if encoding == "utf-8" else "ascii")
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e]", text)
    commands = [line for line in lines if line.startswith("  gradwise ")]
    assert all(cell_len(line) <= min(width, 100) for line in lines if line not in commands)


@settings(max_examples=60, deadline=None)
@given(diagnoses, st.sampled_from(["healthy", "non_finite", "never_stepped"]), st.integers(40, 110))
def test_any_diagnosis_makes_a_page(diagnosis, name, width):
    lines = page((diagnosis, ALL[name]()[1]), width, "ascii")
    assert 2 <= len(lines) <= MOST_LINES


def test_a_sick_run_is_told_in_full():
    text = "\n".join(page(lr_too_high()))
    for words in (
        "✗ sick  train.py --lr 5 --epochs 3",
        "840 steps in 3.5 s",
        "lr-too-high · error · 97 % sure · train.py:14",
        "optimizer = torch.optim.SGD(model.parameters(), lr=args.lr)",
        "update/weight ratio         0.56",
        "✓ lr ×0.03  verified at full length (840 steps), 3 paired runs",
        "train.py:14  SGD(…, lr=5.0) → lr=0.15",
        "✗ lr ×0.3  failed at full length (840 steps), 3 paired runs: no better",
        "· clip norm 1  suggested: the repair budget",
        "✗ learning-rate design   SGD at a constant 5.0, no schedule",
        "gradwise run --apply report.json train.py --lr 5 --epochs 3",
        "overhead 0.8 %, 0.4 s at start",
    ):
        assert words in text


def test_paired_numbers_are_aligned():
    lines = page(lr_too_high())
    at = next(k for k, line in enumerate(lines) if "validation loss   pair 1" in line)
    ends = [[m.end() for m in re.finditer(r"(?<=  )\S[\w.–-]*(?: \d)?(?=  |$)", line)] for line in lines[at : at + 3]]
    assert ends[0][-4:] == ends[1][-4:] == ends[2][-4:]
    assert [line.split()[-4:] for line in lines[at + 1 : at + 3]] == [
        ["2.312", "non-finite", "2.307", "–"],
        ["0.2134", "0.1921", "0.2208", "0.2088"],
    ]


def test_many_pairs_make_room_but_keep_the_mean():
    found, run = lr_too_high()
    finding = found.findings[0]
    many = replace(finding.remedies[0], baseline=(2.0,) * 30, outcome=(1.0,) * 30, diverged=(False,) * 30)
    lines = page((found.with_findings((replace(finding, remedies=(many,)),)), run))
    header = next(line for line in lines if "pair 1" in line)
    assert header.endswith("mean")
    assert "pair 9" not in header


def test_runs_cut_short_are_said_to_be_so():
    assert "verified over the first 390 steps, 3 paired runs" in " ".join(" ".join(page(ALL["non_finite"]())).split())


def test_a_healthy_run_is_three_calm_lines_and_a_chart():
    lines = page(ALL["healthy"]())
    words = list(lines[: lines.index("")])
    assert len(words) == 3
    assert words[0] == "✓ healthy  train.py --epochs 3"
    assert "training loss" in lines[-1]
    assert not any("gradwise " in line or "Checked" in line for line in lines)


def test_a_healthy_run_mentions_what_is_worth_knowing():
    _, run = ALL["healthy"]()
    info = Finding("decay-on-bias-or-norm", "info", 0.9, Where("train.py", 14), "Weight decay reaches 2 biases.")
    lines = page((diagnosis(run, "healthy", (info,), summary="Fine."), run))
    assert "  decay-on-bias-or-norm  Weight decay reaches 2 biases." in lines


def test_an_inconclusive_run_says_what_is_missing():
    text = "\n".join(page(ALL["inconclusive"]()))
    assert "? inconclusive" in text
    assert "12 steps: too short for a trend to show" in text
    assert "no validation loss was evaluated" in text
    assert "weight initialization: not measured" in text
    assert "no step of an optimizer was seen" in "\n".join(page(ALL["never_stepped"]()))


def test_many_findings_are_all_named_in_order():
    found, run = ALL["many"]()
    text = "\n".join(page((found, run)))
    places = [text.index(f"{k + 1}. {f.id}") for k, f in enumerate(found.findings)]
    assert places == sorted(places)


def test_where_even_names_do_not_fit_the_rest_is_counted():
    found, run = lr_too_high()
    crowd = tuple(replace(found.findings[0], id=f"cause-{k}") for k in range(80))
    lines = page((found.with_findings(crowd), run))
    assert len(lines) <= MOST_LINES
    assert any(re.match(r"and \d+ more: cause-", line) for line in lines)


def test_square_brackets_are_text_not_markup():
    run = recording(falling(), script="[bold]train[/bold].py")
    assert "[bold]train[/bold].py" in page((diagnosis(run, "healthy", summary="[red]x[/red] :smile:"), run))[0]


def test_colour_only_where_it_is_wanted():
    def sequences(**options):
        stream = Stream("utf-8")
        render(*lr_too_high(), Console(file=stream, width=80, force_terminal=True, color_system="standard", **options))
        return set(re.findall(r"\x1b\[([\d;]*)m", stream.getvalue()))

    assert any("31" in s.split(";") for s in sequences())
    assert not any(part in s.split(";") for s in sequences(no_color=True) for part in ("31", "32", "33", "36", "90"))
    assert "\x1b" not in "".join(page(lr_too_high()))


def test_a_report_already_written_is_used_by_the_next_command():
    text = "\n".join(page(lr_too_high(), json_path="my report.json", html_path="report.html"))
    assert "gradwise run --apply 'my report.json' train.py --lr 5 --epochs 3" in text
    assert "--json" not in text
    assert "--html" not in text


def test_a_module_is_run_as_one():
    found, run = lr_too_high()
    run = replace(run, run=replace(run.run, module=True))
    text = "\n".join(page((replace(found, script="pkg.train"), run)))
    assert "--apply report.json -m pkg.train --lr 5" in text


def test_without_a_verified_remedy_there_is_nothing_to_apply():
    found, run = lr_too_high()
    finding = replace(found.findings[0], remedies=found.findings[0].remedies[1:])
    text = "\n".join(page((found.with_findings((finding,)), run)))
    assert "--apply" not in text
    assert f"gradwise report {RUN} --html report.html" in text


@pytest.mark.parametrize(
    ("status", "exit", "words"),
    [
        ("failed", 3, "failed with exit status 3"),
        ("killed", None, "killed"),
        ("lost", None, "its process vanished"),
        ("running", None, "still running"),
        ("stopped", 0, "stopped early, as asked"),
    ],
)
def test_how_the_run_ended_is_said(status, exit, words):
    run = recording(falling(), status=status, exit=exit, ended=None)
    assert words in "\n".join(page((diagnosis(run, "healthy"), run)))


def test_the_quoted_line_is_found_by_relative_or_absolute_path():
    found, run = lr_too_high()
    finding = replace(found.findings[0], where=Where("/home/ada/digits/train.py", 14))
    text = "\n".join(page((found.with_findings((finding,)), run)))
    assert "torch.optim.SGD(model.parameters()" in text
    assert "· train.py:14" in text


def test_the_loss_of_the_finding_s_optimizer_is_drawn():
    run = recording(falling())
    other = {("loss/train", 1): replace(run.series["loss/train", 0], values=falling() + 500)}
    run = replace(run, series={**run.series, **other}, optimizers=run.optimizers * 2)
    finding = Finding("lr-too-high", "error", 0.9, Where(), "Too high.", source=1)
    text = "\n".join(page((diagnosis(run, "sick", (finding,), checklist=CHECKLIST), run)))
    assert re.search(r"50\d ┤", text)
    assert "optimizer 1" in text


def test_a_verified_remedy_shows_its_lines():
    lines = [line.strip() for line in page(lr_too_high())]
    at = lines.index("-    opt = SGD(model.parameters(), lr=5.0)")
    assert lines[at - 1 : at + 2] == ["@@ -14 +14 @@", lines[at], "+    opt = SGD(model.parameters(), lr=0.15)"]
