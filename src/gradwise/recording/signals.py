"""Names and units of everything gradwise measures: the one vocabulary that probes write and checks read.

A signal belongs to one optimizer (`source` = its index in order of creation) or, for validation losses, to one
place in the script (`source` = index of that place). Steps count optimizer steps from 0; a value at step *t* is what
held when step *t* was taken (the loss before the update, the gradient handed over, the rate used).
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """One measured quantity: its name in the store, its unit, whether it has a column per tensor, what it means."""

    name: str
    unit: str
    columns: str
    meaning: str


LOSS = Signal("loss/train", "loss", "", "sum of the losses back-propagated into this step, unscaled; every step")
VALIDATION = Signal("loss/validation", "loss", "", "mean over one pass of a loss evaluated without gradient")
TIME = Signal("time", "s", "", "wall time since the recording began, when the step was taken; every step")
LR = Signal("lr", "1", "group", "learning rate of each parameter group as used; at each change")
MOMENTUM = Signal("momentum", "1", "group", "momentum (or beta1) of each group as used; at each change")
BATCH = Signal("batch", "samples", "", "rows seen by the loss functions in one step; at each change")
BACKWARDS = Signal("backwards", "1", "", "backward passes summed into this step; at each change")
GRADIENT = Signal("norm/gradient", "loss", "tensor", "Euclidean norm of the gradient handed to the optimizer")
PARAMETER = Signal("norm/parameter", "1", "tensor", "Euclidean norm of the parameter before the step")
UPDATE = Signal("norm/update", "1", "tensor", "Euclidean norm of the change the step made")
PROGRESS = Signal("progress", "loss", "tensor", "-g.dx: the decrease of the loss that the step promises, first order")
COSINE = Signal("cosine/gradient", "1", "", "cosine of this step's gradient with the step before's, all tensors")
KEPT = Signal("progress/kept", "loss", "", "-g'.dx: what the next step's gradient says of that decrease, all tensors")
PULL = Signal("pull", "loss", "tensor", "-g.p: the decrease of the loss if the parameter grew, per unit of log norm")
TRAVEL = Signal("travel", "1", "tensor", "Euclidean distance from where the parameter started")
CARRIED = Signal(
    "gradient/carried", "1", "", "1 if a step's gradient still held the one before's, 0 if not; at examined steps"
)
SCALE = Signal("scale", "1", "", "GradScaler's loss scale; at each change")
CLASSES = Signal("target/classes", "1", "class", "rows per class (or band of classes) in the step's targets; sampled")
TARGET = Signal("target", "1", "moment", "count, mean and variance of the step's targets, row by row; sampled")

SIGNALS: dict[str, Signal] = {
    s.name: s
    for s in (
        LOSS, VALIDATION, TIME, LR, MOMENTUM, BATCH, BACKWARDS, GRADIENT, PARAMETER, UPDATE, PROGRESS, COSINE, KEPT,
        PULL, TRAVEL, CARRIED, SCALE, CLASSES, TARGET,
    )
}  # fmt: skip
