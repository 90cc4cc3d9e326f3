import pytest

from gradwise.interventions import Intervention
from gradwise.schedules import constant, cosine


def test_interventions_are_data() -> None:
    change = Intervention(lr_scale=0.1, schedule=constant(1.0, steps=5) >> cosine(10), clip_norm=1.0, optimizer=1)
    assert Intervention.from_json(change.to_json()) == change
    assert change.lr_factor(0) == pytest.approx(0.1)
    assert change.lr_factor(10) == pytest.approx(0.05)
    assert "from step 5 on" in change.describe()
    assert (change.touches(1), change.touches(0), bool(Intervention())) == (True, False, False)
    for bad in ({"lr_scale": 0}, {"clip_norm": "big"}, {"lr": 1}):
        with pytest.raises(ValueError, match="intervention"):
            Intervention.from_json(bad)


def test_schedules_of_older_reports_still_mean_the_same() -> None:
    data = {"then": [{"constant": {"factor": 1.0, "steps": 5}}, {"inverse_time": {"rate": 20.0, "decay_steps": 7}}]}
    assert Intervention.from_json({"schedule": data}).lr_factor(12) == pytest.approx(1 / 21)
    assert Intervention.from_json({"schedule": {"warmup": {"steps": 4}}}).lr_factor(1) == 0.5
