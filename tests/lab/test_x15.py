"""X15: scores and ranks by hand; a verdict that follows what was measured."""

from __future__ import annotations

from typing import Any

from gradwise.lab.experiment import DOES_NOT_HOLD, HOLDS, Bench, Verdict
from gradwise.lab.sweeps import ADAPTIVE, RULES
from gradwise.lab.x15_ranking import EXPERIMENT, ranks, scores

TASKS = ("digits", "deep digits", "digits:5", "uneven digits")


def measures(ends: dict[str, float | None], early: dict[str, float] | None = None) -> dict[str, Any]:
    rules = {}
    for rule in RULES:
        end = ends[rule]
        told = {"rate": 0.01, "validation": [2.0, 1.5, 1.0, 0.8, end], "train": end, "test": end}
        rules[rule] = {**told, "early": (early or {}).get(rule, end)}
    return {"start": 2.0, "rules": rules}


def runs(lead: float, sparse: float) -> dict[str, dict[int, Any]]:
    """Adaptive rules ahead of plain ones by `lead` of the loss, Adam first; on sparse inputs by so much more."""
    found: dict[str, dict[int, Any]] = {}
    for task in TASKS:
        found[task] = {}
        for seed in range(3):
            noise = 1e-4 * seed
            adam = 0.5 - lead - (sparse if ":" in task else 0.0)
            ends: dict[str, float | None] = {r: 0.5 - lead + noise if r in ADAPTIVE else 0.5 + noise for r in RULES}
            ends["Adam"] = adam - 1e-3 * (1 if lead > 0 else -1) - noise
            early = {r: v + (-0.3 if r in ADAPTIVE else 0.3) * (1 if lead > 0 else -1) for r, v in ends.items() if v}
            found[task][seed] = measures(ends, early)
    return found


def statement(verdict: Verdict, words: str) -> bool | None:
    [found] = [s.held for s in verdict.statements if words in s.text]
    return found


def test_scores_are_shares_of_the_largest_fall() -> None:
    m = measures(dict.fromkeys(RULES, 1.0) | {"Adam": 0.0, "SGD": None})
    assert scores(m) == dict.fromkeys(RULES, 0.5) | {"Adam": 1.0, "SGD": 0.0}
    assert ranks(m)["Adam"] == 1
    assert ranks(m)["SGD"] == len(RULES)
    assert ranks(m)["momentum"] == 4  # 2 to 6 shared


def test_the_claim_holds_where_it_was_measured_so() -> None:
    verdict = EXPERIMENT.judge(runs(lead=0.01, sparse=0.005))
    assert verdict.word == HOLDS, [s for s in verdict.statements if not s.held]
    assert "p = " in verdict.why


def test_the_claim_falls_where_the_opposite_was_measured() -> None:
    verdict = EXPERIMENT.judge(runs(lead=-0.2, sparse=-0.1))
    assert verdict.word != HOLDS
    for words in ("best overall", "Sparse data", "Deep nets", "Fast convergence", "slower", "as inputs become sparser"):
        assert statement(verdict, words) is False, words
    assert verdict.word != DOES_NOT_HOLD  # SGD does get there, and the three are alike on the dense tasks


def test_seeds_that_contradict_each_other_decide_nothing() -> None:
    mixed, other = runs(lead=0.05, sparse=0.02), runs(lead=-0.05, sparse=-0.02)
    for task in TASKS:
        mixed[task][1] = other[task][1]
    verdict = EXPERIMENT.judge(mixed)
    assert statement(verdict, "Deep nets") is None
    assert statement(verdict, "best overall") is None


def test_a_rule_that_is_chosen_on_validation_data_is_judged_by_its_test_loss() -> None:
    found = runs(lead=0.01, sparse=0.0)
    for seeds in found.values():
        for m in seeds.values():
            m["rules"]["Adagrad"] |= {"validation": [2.0, 1.5, 1.0, 0.8, 0.01], "test": 1.9}  # looks best, is worst
    assert statement(EXPERIMENT.judge(found), "Deep nets") is False


def test_what_is_measured_is_the_same_each_time_and_drawn() -> None:
    settings = {"task": "breast_cancer", "steps": 12}
    one, two = (EXPERIMENT.measure(settings, 1, Bench(quick=True)) for _ in range(2))
    assert one == two
    assert set(one["rules"]) == set(RULES)
    assert all(r["test"] < one["start"] for r in one["rules"].values())
    full = runs(lead=0.01, sparse=0.005)
    assert [len(table.rows) for table in EXPERIMENT.tables(full)] == [1 + len(RULES)] * 3
    assert EXPERIMENT.tables(full)[0].rows[1][0] == "Adam"
    assert len(EXPERIMENT.figures(full)["ranks"].data) == 1
    for quick in (True, False):
        assert {c.name for c in EXPERIMENT.cells(quick)} >= set(TASKS)
        assert "deep" in EXPERIMENT.setup(quick)


def test_the_full_form_needs_the_data_that_it_names() -> None:
    sets = {word for cell in EXPERIMENT.cells(False) for word in ("california", "fashion_mnist") if word in cell.name}
    assert sets == set(EXPERIMENT.data)
