"""Draw the figures of these pages from real recordings: `python docs/make_figures.py [NAME…]`.

Each figure is the loss of one run of an example, with the finding marked, as gradwise's own reports draw it.
`tests/test_docs.py` holds the pages to the commands named here.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from gradwise.diagnosis import diagnose
from gradwise.recording.store import Store
from gradwise.report.svg import loss_svg

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"

# What is drawn: an example with its arguments, a patient of the clinic, or the script that a page shows.
RUNS: dict[str, tuple[str, ...]] = {
    "healthy": ("digits_mlp.py",),
    "lr-too-high": ("digits_mlp.py", "--lr", "5", "--schedule", "none"),
    "lr-too-low": ("digits_mlp.py", "--lr", "0.0005", "--schedule", "none"),
    "late-lr-too-high": (
        "digits_mlp.py", "--lr", "0.06", "--batch-size", "16", "--schedule", "none", "--epochs", "20",
    ),
    "late-divergence": ("digits_mlp.py", "--schedule", "exp", "--gamma", "1.15"),
    "non-finite-loss": ("findings/non-finite-loss.md",),
    "lr-decayed-too-early": ("clinic/sick/lr-decayed-too-early/digits_conv.py",),
    "exploding-gradients": ("clinic/sick/exploding-gradients/bit_counter.py",),
    "vanishing-gradients": ("clinic/sick/vanishing-gradients/digits_mlp.py",),
    "gradient-scale-disparity": ("clinic/sick/gradient-scale-disparity/damped_oscillation.py",),
    "dead-units": ("clinic/sick/dead-units/rare_event_detector.py",),
    "saturated-activations": ("clinic/sick/saturated-activations/coordinate_network.py",),
    "unnormalized-inputs": ("clinic/sick/unnormalized-inputs/wine_classifier.py",),
    "unshuffled-data": ("clinic/sick/unshuffled-data/class_folders.py",),
    "bad-initialization": ("clinic/sick/bad-initialization/digits_deep_mlp.py",),
    "stuck-at-saddle": ("clinic/sick/stuck-at-saddle/circles_constant.py",),
    "overfitting": ("clinic/sick/overfitting/diabetes_net.py",),
    "underfitting": ("clinic/sick/underfitting/circles.py",),
    "over-regularized": ("clinic/sick/over-regularized/digits_gelu_mlp.py",),
    "missing-zero-grad": ("clinic/sick/missing-zero-grad/digits_mlp.py",),
    "parameters-not-optimized": ("clinic/sick/parameters-not-optimized/digits_deep_list.py",),
    "no-parameter-change": ("clinic/sick/no-parameter-change/cross_validation.py",),
    "frozen-or-detached-graph": ("clinic/sick/frozen-or-detached-graph/graph_communities.py",),
    "probabilities-into-logit-loss": ("clinic/sick/probabilities-into-logit-loss/digits_cnn.py",),
    "loss-shape-broadcast": ("clinic/sick/loss-shape-broadcast/friedman_regression.py",),
    "eps-dominated-updates": ("clinic/sick/eps-dominated-updates/weighted_autoencoder.py",),
    "eval-mode-in-training": ("clinic/sick/eval-mode-in-training/deep_batchnorm.py",),
    "train-mode-in-eval": ("clinic/sick/train-mode-in-eval/digits_dropout.py",),
    "noisy-small-batch": ("clinic/sick/noisy-small-batch/noisy_measurements.py",),
    "labels-mismatched": ("clinic/sick/labels-mismatched/csv_columns.py",),
    "decay-on-bias-or-norm": ("clinic/sick/decay-on-bias-or-norm/count_rates.py",),
}  # fmt: skip

BY_TRIAL = ("noisy-small-batch",)


def script_in(page: Path) -> str:
    """The Python script that a page shows, its first one."""
    found = re.search(r"^```python\n(.*?)^```$", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None, f"{page} shows no script"
    return found[1]


def draw(name: str) -> str:
    """Run, diagnose and draw; the finding must be the one that the figure is named for."""
    script, *arguments = RUNS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = HERE.parent / script if script.startswith("clinic/") else EXAMPLES / script
        if script.endswith(".md"):
            path = Path(folder, "train.py")
            path.write_text(script_in(HERE / script), "utf-8")
        database = str(Path(folder, "runs.db"))
        command = [sys.executable, "-m", "gradwise", "doctor", "--no-repair", "--quiet", "--store", database]
        subprocess.run([*command, str(path), *arguments], stdout=subprocess.DEVNULL, check=True, cwd=folder)
        with Store.open(database, create=False) as store:
            recording = store.load(store.resolve("last"))
    diagnosis = diagnose(recording)
    found = [f.id for f in (*diagnosis.findings, *diagnosis.suspicions)]
    told = [f for f in (*diagnosis.findings, *diagnosis.suspicions) if f.severity != "info" or f.id == name]
    # What only a trial decides is a suspicion among others here, or nothing.
    assert name in found or name in BY_TRIAL if name != "healthy" else not told, f"{name}: {found or diagnosis.verdict}"
    first = next((f for f in told if f.id == name), None)
    marks = [(first.where.step or 0, first.id)] if first is not None else []
    said = " ".join((script, *arguments))
    svg = loss_svg(recording, first.source if first is not None else 0, marks)
    svg = svg.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
    return re.sub(r"(<svg [^>]*>)", rf"\1<title>{said}</title>", svg, count=1) + "\n"


if __name__ == "__main__":
    for name in sys.argv[1:] or RUNS:
        (HERE / "figures" / f"{name}.svg").write_text(draw(name), "utf-8")
        print(name)
