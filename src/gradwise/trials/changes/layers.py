"""Changes to hidden layers: another activation, batch normalization or dropout after it, other odds of dropout."""

from __future__ import annotations

import functools
import weakref
from typing import Any

from gradwise.probes.tracked import Tracked
from gradwise.trials.changes.base import Change, Stage, parameters_of
from gradwise.trials.changes.calls import Call
from gradwise.trials.changes.hidden import Site
from gradwise.trials.changes.ownership import hand_over

_NO_LAYER = "none of the script's modules has a hidden activation"


class Activation(Change):
    """Another activation in hidden layers; where it is the one that is there, nothing changes."""

    wanting = _NO_LAYER

    def install(self) -> None:
        """Act in the place of hidden activations."""
        self.stage.hidden.replaced = self._apply
        self._function = self.stage.hidden.originals[self.value]

    def _apply(self, site: Site, given: Any, _: Any) -> Any:
        self.found += 1
        return self._function(given)


class Dropout(Change):
    """Dropout after hidden activations, in modules that are in training mode."""

    wanting = f"{_NO_LAYER} after which dropout could stand"

    def install(self) -> None:
        """Act after hidden activations."""
        self.stage.hidden.additions.append(self._drop)

    def _drop(self, site: Site, given: Any, module: Any) -> Any:
        self.found += 1
        if not module.training or not self.value:
            return given
        kept = self.torch.empty_like(given, requires_grad=False)
        kept.bernoulli_(1 - self.value, generator=self.stage.generator("dropout", given.device))
        return given * kept.div_(1 - self.value)


class BatchNorm(Change):
    """Batch normalization after hidden activations; the optimizer of the model gets its parameters, too."""

    wanting = f"{_NO_LAYER} after which batch normalization could stand"

    def __init__(self, stage: Stage, value: Any) -> None:
        super().__init__(stage, value)
        self._made: list[tuple[weakref.ref[Any], Any]] = []  # the model, and what was put in it

    def install(self) -> None:
        """Act after hidden activations."""
        self.stage.hidden.additions.append(self._normalize)

    def _normalize(self, site: Site, given: Any, module: Any) -> Any:
        self.found += 1
        norm = site.added.get("batch-norm")
        if norm is None:
            # The models of scripts that step by hand list their parameters themselves: no more than those would move.
            affine = bool(self.stage.watcher.registry.seen)
            norm = self.torch.nn.BatchNorm1d(
                given.shape[site.features],
                affine=affine,
                device=given.device,
                dtype=_at_least_single(self.torch, given.dtype),
            )
            site.added["batch-norm"] = norm
            outer = self.stage.calls.outer
            if affine and outer is not None:
                self._made.append((weakref.ref(outer.module), norm))
        norm.train(module.training)
        # By hand, for whatever number of dimensions: rows by features.
        moved = given.movedim(site.features, -1)
        rows = moved.reshape(-1, moved.shape[-1])
        if module.training and len(rows) < 2:
            self.stage.refuse("its batches of one row can't be normalized")
            return given
        forward = type(norm).forward  # not called as a module: it is none of the script's
        out = forward(norm, rows.to(_at_least_single(self.torch, given.dtype))).to(given.dtype)
        return out.reshape(moved.shape).movedim(-1, site.features)

    def gradients(self, optimizer: Any, tracked: Tracked) -> None:
        """Hand the parameters of what was inserted to the model's optimizer."""
        own = {id(p): p for p in parameters_of(optimizer)}
        for entry in list(self._made):
            model = entry[0]()
            first = next((p for p in _parameters(model) if id(p) in own), None)
            if first is not None:
                self._made.remove(entry)
                hand_over(self.stage, optimizer, list(_parameters(entry[1])), first)


def _at_least_single(torch: Any, dtype: Any) -> Any:
    """The precision to normalize in: the data's own, but no half precision."""
    return torch.promote_types(dtype, torch.float32)


def _parameters(module: Any) -> list[Any]:
    """A module's parameters, not by the method that the watcher takes for the script's asking."""
    return [] if module is None else [p for m in module.modules() for p in m._parameters.values() if p is not None]


class DropoutScale(Change):
    """A factor on the probability of every dropout; the script's own random numbers run on as they did."""

    wanting = "the script has no dropout"

    def install(self) -> None:
        """Take the place of every function that drops."""
        functional, patches = self.torch.nn.functional, self.stage.patches
        for name in ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout"):
            patches.replace(functional, name, self._wrap)
        patches.replace(self.torch, "dropout", self._wrap_plain)
        patches.replace(functional, "scaled_dot_product_attention", self._wrap_attention)
        self.stage.calls.before.append(self._called)

    def _scaled(self, p: float) -> float:
        self.found += p > 0
        return min(p * float(self.value), 1.0)

    def _wrap(self, original: Any) -> Any:
        def dropout(input: Any, p: float = 0.5, training: bool | None = None, inplace: bool = False) -> Any:  # noqa: A002
            usual = original.__name__ not in ("alpha_dropout", "feature_alpha_dropout")
            training = usual if training is None else training
            scaled = self._scaled(p)
            if training and p and not scaled:
                original(input.detach(), p, True, False)  # draws what it would have drawn
            return original(input, scaled, training, inplace)

        return dropout

    def _wrap_plain(self, original: Any) -> Any:
        def dropout(input: Any, p: float, train: bool) -> Any:  # noqa: A002
            scaled = self._scaled(p)
            if train and p and not scaled:
                original(input.detach(), p, True)
            return original(input, scaled, train)

        return dropout

    def _wrap_attention(self, original: Any) -> Any:
        def attention(*args: Any, **kwargs: Any) -> Any:
            if len(args) > 4:
                args = (*args[:4], self._scaled(args[4]), *args[5:])
            elif "dropout_p" in kwargs:
                kwargs = {**kwargs, "dropout_p": self._scaled(kwargs["dropout_p"])}
            return original(*args, **kwargs)

        return attention

    def _called(self, call: Call) -> None:
        """Recurrent layers drop within one call to C++: their own setting is changed for the call."""
        for module in call.module.modules():
            if isinstance(module, self.torch.nn.RNNBase) and module.dropout:
                call.undo.append(functools.partial(setattr, module, "dropout", module.dropout))
                module.dropout = self._scaled(module.dropout)
