"""What a finding says once its NaN has been traced: the place, the reason, what to write, and cures that suit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwise.diagnosis.findings import Finding, Remedy, Where
from gradwise.diagnosis.origins import located, nature_of, operation
from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place, Recording, RunInfo, Series
from gradwise.recording.signals import LOSS, TIME

PLACE = {"file": "net.py", "line": 12}
FINDING = Finding(
    "non-finite-loss", "error", 0.95, Where("train.py", 3, step=7), "The loss was nan at step 7: something.",
    {"first_bad_step": 7, "stage": "forward", "loss_before": 0.4},
    (Remedy(Intervention(clip_norm=1.0), "clip"),),
)  # fmt: skip


def recording() -> Recording:
    steps = np.arange(8)
    made, stepped = Place("train.py", 3), Place("train.py", 9)
    optimizer = OptimizerInfo(0, "Adam", groups=({"lr": 0.01},), made=made, stepped=stepped)
    series = {(LOSS.name, 0): Series(steps, np.r_[np.ones(7), np.nan]), (TIME.name, 0): Series(steps, 0.1 * steps)}
    return Recording(RunInfo(""), (optimizer,), series=series)


def told(**data: Any) -> dict[str, Any]:
    return {"kind": "nan", "stage": "forward", "step": 7, "module": "head.norm", "place": PLACE, "inputs": [], **data}


def given(low: float, high: float, zeros: int = 0, bad: int = 0, dtype: str = "float32") -> dict[str, Any]:
    return {"size": [32, 4], "dtype": dtype, "min": low, "max": high, "zeros": zeros, "bad": bad}


# What was traced; what the explanation says; the first cure; whether it is about the rate.
NATURES = {
    "log": (told(kind="inf", operation="log", inputs=[given(0, 1, 3)]), "not positive", "skip-non-finite"),
    "log's slope": (told(stage="backward", node="Log"), "gradient of `log`", "skip-non-finite"),
    "root": (told(operation="sqrt", inputs=[given(-1e-7, 1)]), "not defined there", "skip-non-finite"),
    "root's slope": (told(stage="backward", node="Sqrt"), "its slope is", "skip-non-finite"),
    "norm's slope": (told(stage="backward", node="LinalgVectorNorm"), "its slope is", "skip-non-finite"),
    "0/0": (told(operation="div", inputs=[given(-1, 1), given(0, 2, 5)]), "divided by zero", "skip-non-finite"),
    "exp": (told(kind="inf", operation="exp", inputs=[given(-3, 100)]), "exp(88.7)", "clip norm 1"),
    "softmax": (told(operation="_softmax", masked=True, inputs=[given(-1, 1, bad=4)]), "masked", "skip-non-finite"),
    "product": (told(kind="inf", operation="mm", inputs=[given(-1e25, 1e30)]), "grown too large", "clip norm 1"),
    "product of halves": (
        told(kind="inf", operation="mm", inputs=[given(-300, 900, dtype="float16")]), "grown too large", "clip norm 1",
    ),
    "square of zeros": (told(kind="inf", operation="pow", inputs=[given(-1e25, 1e30)]), "overflowed", "clip norm 1"),
    "update": (told(stage="update", operation="addcdiv_", parameter="w"), "update of w at step 7", "clip norm 1"),
    "data": (told(stage="data", operation="", columns=[2], inputs=[given(0, 1, bad=3)]), "3 of 128 values (column 2)",
             "clean-inputs"),
    "prepared": (told(stage="data", operation="div", inputs=[given(0, 1), given(0, 2, 1)]), "prepares it, divided",
                 "clean-inputs"),
    "already": (told(stage="parameter", operation="", parameter="w"), "parameter w was not finite", "clip norm 1"),
    "empty": (told(operation="mean", inputs=[{"size": [0, 4], "dtype": "float32"}]), "empty", "skip-non-finite"),
    "unheard of": (told(operation="frobnicate", inputs=[given(0, 1)]), "made NaN of finite", "skip-non-finite"),
}  # fmt: skip


@pytest.mark.parametrize("name", NATURES)
def test_reason_place_and_cure(name: str) -> None:
    data, words, cure = NATURES[name]
    found = located(FINDING, data, recording())
    assert words in found.explanation
    assert found.explanation.startswith("The loss was nan at step 7. ")
    assert (found.where.file, found.where.line, found.where.module) == ("net.py", 12, "head.norm")
    assert found.where.parameter == data.get("parameter")
    assert found.remedies[0].intervention.describe() == cure
    assert all(r.advice and r.status == "suggested" for r in found.remedies)
    assert found.evidence["loss_before"] == 0.4


def test_an_inf_s_way_to_the_loss_is_told() -> None:
    then = {"kind": "nan", "operation": "mul", "place": {"file": "net.py", "line": 14}, "module": None}
    found = located(FINDING, told(kind="inf", operation="log", inputs=[given(0, 1, 3)], then=then), recording())
    assert "`log` at net.py:12 (in module head.norm)" in found.explanation
    assert "The Inf became NaN in `mul` at net.py:14." in found.explanation
    assert found.evidence["input_1"] == "0 to 1, 3 zero"


@pytest.mark.parametrize(("step", "where"), [(5, 5), (7, 7), (40, 7), (0, 7)])
def test_a_run_with_other_luck_fails_at_another_step(step: int, where: int) -> None:
    found = located(FINDING, told(operation="log", step=step), recording())
    assert found.where.step == where
    assert ("other random numbers" in found.explanation) == (step != where)


def test_without_a_place_the_finding_keeps_its_own() -> None:
    found = located(FINDING, told(operation="", stage="parameter", parameter="w", place=None), recording())
    assert (found.where.file, found.where.line) == ("train.py", 3)


def test_data_is_cleaned_where_it_is_read_and_steps_skipped_where_they_are_made() -> None:
    found = located(FINDING, NATURES["data"][0], recording())
    assert [r.advice.split()[0] for r in found.remedies] == ["net.py:12", "train.py:9"]


@pytest.mark.parametrize("data", [{}, {"stage": "elsewhere"}, {"place": {}}, {"inputs": [{}]}])
def test_what_is_missing_is_not_told(data: dict[str, Any]) -> None:
    assert nature_of(data).says
    assert located(FINDING, data, recording()).explanation


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ({"node": "LogSoftmax", "operation": "mul"}, "log_softmax"),
        ({"operation": "_foreach_div_"}, "div"),
        ({"operation": "_softmax"}, "softmax"),
        ({}, ""),
    ],
)
def test_operations_by_the_names_people_use(data: dict[str, Any], name: str) -> None:
    assert operation(data) == name
