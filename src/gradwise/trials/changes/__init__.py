"""Changes to live training: one file per family, and the table from the keys and fixes of an intervention to them."""

from __future__ import annotations

from gradwise.interventions import Intervention
from gradwise.trials.changes import flow, gradients, inputs, layers, losses, ownership, settings, weights
from gradwise.trials.changes.base import Change, Stage

# In this order they act: what mends the inputs before what changes them, a step that is skipped before those that are
# put together, what changes weights before what decays them.
CHANGES: dict[str, type[Change]] = {
    "stop": flow.Stop,
    "shuffle": flow.Shuffle,
    "modes": flow.Modes,
    "init": weights.Init,
    "break-symmetry": weights.BreakSymmetry,
    "unfreeze": ownership.Unfreeze,
    "adopt-parameters": ownership.Adopt,
    "clean-inputs": inputs.CleanInputs,
    "standardize": inputs.Standardize,
    "noise": inputs.Noise,
    "activation": layers.Activation,
    "batch-norm": layers.BatchNorm,
    "dropout": layers.Dropout,
    "dropout_scale": layers.DropoutScale,
    "logits": losses.Logits,
    "match-shapes": losses.MatchShapes,
    "zero-grad": gradients.ZeroGrad,
    "loss_scale": gradients.LossScale,
    "momentum": settings.Momentum,
    "eps": settings.Eps,
    "decay_scale": settings.DecayScale,
    "decay-weights-only": settings.DecayWeightsOnly,
    "skip-non-finite": gradients.SkipNonFinite,
    "accumulate": gradients.Accumulate,
    "decay": settings.Decay,
}
"""All keys of an intervention but those that `Applier` sees to itself, and all fixes."""


def changes_of(stage: Stage) -> list[Change]:
    """The changes that an intervention calls for, in the order in which they act."""
    wanted = {**stage.intervention.to_json(), **dict.fromkeys(stage.intervention.fixes, True)}
    return [kind(stage, wanted[name]) for name, kind in CHANGES.items() if name in wanted]


def scores_of(stage: Stage, judged_by: Intervention) -> list[Change]:
    """What lets a run train as it does and record the loss that it would have with the fixes of `judged_by`."""
    fixes = [losses.CORRECTIONS[fix] for fix in judged_by.fixes if fix in losses.CORRECTIONS]
    score = losses.Score(stage, True)
    corrections = [kind(stage, True, score) for kind in fixes]
    for correction in corrections:
        correction.patience = None
    return [score, *corrections] if corrections else []
