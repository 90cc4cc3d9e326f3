"""Changes to an optimizer's settings: momentum, epsilon, weight decay. They hold during a step and are put back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from gradwise.probes.tracked import Tracked
from gradwise.trials.changes.base import Change, Loan, Stage


class _Setting(Change):
    """A value in every group of an optimizer, while it steps."""

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self.loan = Loan()

    def before_step(self, optimizer: Any, tracked: Tracked) -> None:
        for group in optimizer.param_groups:
            for key, value in self.settings(group):
                self.found += 1
                self.loan.set(optimizer, group, key, value)

    def settings(self, group: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """What to set in a group."""
        raise NotImplementedError

    def after_step(self, optimizer: Any, tracked: Tracked) -> None:
        self.loan.give_back(optimizer)


class Momentum(_Setting):
    """Momentum; of Adam and its kin the first beta."""

    wanting = "its optimizer has no momentum to set"

    def settings(self, group: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """Momentum or the first beta."""
        betas = group.get("betas")
        if group.get("momentum") is not None:
            yield "momentum", self.value
            if group.get("nesterov") and not self.value:  # which looks ahead along nothing then
                yield "nesterov", False
        elif isinstance(betas, list | tuple) and betas:
            yield "betas", (self.value, *betas[1:])


class Eps(_Setting):
    """The epsilon of an adaptive rule."""

    wanting = "its optimizer has no epsilon"

    def settings(self, group: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """The epsilon, where it is one number."""
        if isinstance(group.get("eps"), float | int):
            yield "eps", self.value


class DecayScale(_Setting):
    """A factor on the optimizer's own weight decay."""

    wanting = "its optimizer has no weight decay to scale"

    def settings(self, group: dict[str, Any]) -> Iterator[tuple[str, Any]]:
        """The group's decay times the factor."""
        if group.get("weight_decay"):
            yield "weight_decay", group["weight_decay"] * self.value


class Decay(Change):
    """Decoupled weight decay: right before a step every weight shrinks by rate × decay, as in AdamW."""

    wanting = "its optimizer holds no weights to decay"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._due: set[int] = set()

    def before_step(self, optimizer: Any, tracked: Tracked) -> None:
        """A step is due its decay."""
        self._due.add(id(optimizer))

    def gradients(self, optimizer: Any, tracked: Tracked) -> None:
        """Shrink the weights that are about to be updated."""
        if id(optimizer) not in self._due:  # a closure may be evaluated several times within a step
            return
        self._due.discard(id(optimizer))
        weights = self.stage.weights(optimizer)
        with self.torch.no_grad():
            for group in optimizer.param_groups:
                for p in group["params"]:
                    if id(p) in weights:
                        self.found += 1
                        if p.grad is not None:
                            p.mul_(1 - group.get("lr", 1.0) * self.value)


class DecayWeightsOnly(Change):
    """No decay on biases and normalization: while it steps, the optimizer's groups are split by what decays."""

    wanting = "its optimizer decays no biases and no normalization"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._whole: dict[int, list[Any]] = {}

    def before_step(self, optimizer: Any, tracked: Tracked) -> None:
        """Split the groups."""
        weights = self.stage.weights(optimizer)
        groups: list[Any] = []
        for group in optimizer.param_groups:
            # In runs of neighbours, so that the order of the parameters stays: what looks at a step goes by it.
            parts = [(decays, list(each)) for decays, each in groupby(group["params"], lambda p: id(p) in weights)]
            if not group.get("weight_decay") or all(decays for decays, _ in parts):
                groups.append(group)
                continue
            self.found += 1
            for decays, held in parts:
                groups.append({**group, "params": held} if decays else {**group, "params": held, "weight_decay": 0.0})
        self._whole[id(optimizer)] = optimizer.param_groups
        optimizer.param_groups = groups

    def after_step(self, optimizer: Any, tracked: Tracked) -> None:
        """Put the script's groups back."""
        whole = self._whole.pop(id(optimizer), None)
        if whole is not None:
            optimizer.param_groups = whole
