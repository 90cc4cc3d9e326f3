from __future__ import annotations

from gradwise.trials.environment import compiled_kernels, trial_environment


def test_nobody_is_shown_asked_or_told_anything() -> None:
    env = {"DISPLAY": ":0", "WANDB_MODE": "online", "LR": "3", "TMPDIR": "/elsewhere"}
    trial = trial_environment(env, "/scratch/tmp")
    assert "DISPLAY" not in trial
    assert trial["WANDB_MODE"] == "disabled"
    assert trial["MPLBACKEND"] == "Agg"
    assert trial["LR"] == "3"
    assert {trial[name] for name in ("TMPDIR", "TEMP", "TMP")} == {"/scratch/tmp"}
    assert trial["MLFLOW_TRACKING_URI"] == "file:///scratch/tmp/mlruns"
    assert env["WANDB_MODE"] == "online"


def test_the_order_of_sets_is_fixed_but_a_choice_of_the_user_s_stays() -> None:
    assert trial_environment({}, "/t")["PYTHONHASHSEED"] == "0"
    assert trial_environment({"PYTHONHASHSEED": "random"}, "/t")["PYTHONHASHSEED"] == "0"
    assert trial_environment({"PYTHONHASHSEED": "7"}, "/t")["PYTHONHASHSEED"] == "7"


def test_compiled_kernels_are_found_where_torch_puts_them() -> None:
    import os

    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    assert compiled_kernels(os.environ) == default_cache_dir()
    assert trial_environment({"TORCHINDUCTOR_CACHE_DIR": "/mine"}, "/t")["TORCHINDUCTOR_CACHE_DIR"] == "/mine"
