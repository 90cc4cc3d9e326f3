"""The environment of a trial: the script's own, with everything switched off that shows, asks or reports to others."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

_SETTINGS = {
    "MPLBACKEND": "Agg",  # plt.show() returns at once
    "SDL_VIDEODRIVER": "dummy",  # pygame environments draw nowhere
    "QT_QPA_PLATFORM": "offscreen",
    "WANDB_MODE": "disabled",
    "WANDB_SILENT": "true",
    "WANDB_DISABLE_CODE": "true",
    "COMET_START_ONLINE": "0",  # writes an archive into the scratch copy instead
    "COMET_MODE": "DISABLED",  # what the callback of transformers asks for
    "NEPTUNE_MODE": "debug",  # keeps nothing, sends nothing
    "CLEARML_OFFLINE_MODE": "1",
    "TRAINS_OFFLINE_MODE": "1",
    "SWANLAB_MODE": "disabled",
    # What the watched run needed is in the cache by now, so offline works, and nothing newer slips in between trials.
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TQDM_MININTERVAL": "10",  # nobody watches; not switched off, since scripts read `bar.n`
    "GIT_OPTIONAL_LOCKS": "0",  # `git status` doesn't refresh the index
    "GIT_TERMINAL_PROMPT": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
# For a replay: what is compiled has no second derivative.
UNCOMPILED = {"TORCH_COMPILE_DISABLE": "1"}
# Without a display a window fails at once instead of waiting for someone to close it.
_GONE = ("DISPLAY", "WAYLAND_DISPLAY", "MPLFIGUREMANAGER")


def trial_environment(env: Mapping[str, str], temporary: str, tracking: str | None = None) -> dict[str, str]:
    """The environment for a trial of a script that ran with `env`.

    Args:
        env: the environment of the watched run.
        temporary: folder for the trial's temporary files.
        tracking: folder for MLflow's runs, else `temporary`/mlruns.
    """
    trial = {name: value for name, value in env.items() if name not in _GONE} | _SETTINGS
    trial.setdefault("TORCHINDUCTOR_CACHE_DIR", compiled_kernels(env))
    trial |= {"TMPDIR": temporary, "TEMP": temporary, "TMP": temporary}
    trial["MLFLOW_TRACKING_URI"] = f"file://{tracking or os.path.join(temporary, 'mlruns')}"
    # The order of sets of strings is luck too; fixed, so that paired trials share it.
    if not env.get("PYTHONHASHSEED", "").isdigit():
        trial["PYTHONHASHSEED"] = "0"
    return trial


def compiled_kernels(env: Mapping[str, str]) -> str:
    """Where torch.compile keeps its results by default, below the folder for temporary files.

    Trials share it, since compiling takes longer than many a trial. For its headers it asks no variable where to go,
    so the scratch has a link of the same name.
    """
    folder = next((env[n] for n in ("TMPDIR", "TEMP", "TMP") if env.get(n) and os.path.isdir(env[n])), "/tmp")
    user = next((env[n] for n in ("LOGNAME", "USER", "LNAME", "USERNAME") if env.get(n)), "")
    if not user:
        import pwd

        try:
            user = pwd.getpwuid(os.getuid()).pw_name
        except KeyError:
            user = f"uid_{os.getuid()}"
    return os.path.join(folder, "torchinductor_" + re.sub(r'[\\/:*?"<>|]', "_", user))
