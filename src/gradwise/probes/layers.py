"""What goes through a model's layers, read off the graph: scales, units that never fire, flat ends, gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gradwise.probes.examinations import Exam
from gradwise.probes.graph import Node
from gradwise.probes.guesses import first_loss
from gradwise.probes.recorder import Recorder
from gradwise.probes.structure import OTHERS, SIGMOIDS, Activation, Structure, structure

if TYPE_CHECKING:
    from torch import Tensor

_T = TypeVar("_T")

# Layers and activations looked at in one pass, calls of each, and numbers of each call.
_MOST, _CALLS, _NUMBERS = 32, 5, 1 << 13
# Where the slope is below a twentieth of the steepest: of tanh 1 - t², of a sigmoid the same of 2s - 1.
_FLAT = 0.95
# Examinations in a row without a sign of life, after which a unit counts as dead.
_DEAD = 3


class Layers:
    """The examiner. One event "layers" an examination and optimizer, with numbers on each layer and activation.

    Args:
        courses: the courses of training: index, names and parameters of each.
        names: a parameter's name.
    """

    def __init__(
        self,
        torch: ModuleType,
        recorder: Recorder,
        courses: Callable[[], Iterable[tuple[int, Sequence[str], Sequence[Any]]]],
        names: Callable[[Any], str | None],
    ) -> None:
        self.torch, self.recorder, self.courses, self.names = torch, recorder, courses, names
        self._number = -1
        self._told: set[int] = set()
        self._alike: set[str] = set()
        self._lives: dict[tuple[str, str], _Lives] = {}

    def before(self, exam: Exam) -> None:
        """Measure what went forward, and let the gradients be measured as they come."""
        if exam.number != self._number:
            self._number, self._told = exam.number, set()
        if exam.passed and not self._more():
            return
        held = self._held()
        found = structure(exam.graph)
        if not found.layers:
            return
        owners = [held[id(layer.weight)][0] for layer in found.layers if id(layer.weight) in held]
        source = max(set(owners), key=owners.count) if owners else 0
        if source in self._told:
            return
        self._told.add(source)
        exam.notes["nameless"] = {
            self._name(p, held): p for layer in found.layers for p in (layer.weight, layer.bias)
            if p is not None and id(p) not in held
        }  # fmt: skip
        with self.torch.no_grad():
            data = self._measure(found, exam, held)
            loss = None if exam.number else first_loss(self.torch, exam.graph, exam.losses)
        if loss is not None:
            data["loss"] = loss
        exam.notes["layers"] = source, data
        exam.notes["arriving"] = self._listen(found)

    def after(self, exam: Exam) -> None:
        """Add the gradients that arrived, and record it all."""
        if "layers" not in exam.notes:
            return
        source, data = exam.notes.pop("layers")
        self._name_late(data, exam.notes.pop("nameless"))
        arrived, handles = exam.notes.pop("arriving")
        for handle in handles:
            handle.remove()
        with self.torch.no_grad():
            squares = self._numbers([square for _, _, square in arrived])
        for (i, j, _), square in zip(arrived, squares, strict=True):
            data["layers"][i]["gradients"][j] = _number(math.sqrt(max(square, 0.0)))
        self.recorder.event("layers", exam.step, source, data)

    def finish(self) -> None:
        """Everything is recorded as it is found."""

    def _more(self) -> bool:
        """Whether further passes may belong to optimizers that the first ones of this examination did not."""
        return len({index for index, _, _ in self.courses()} - self._told) > 0

    # forward

    def _measure(self, found: Structure, exam: Exam, held: dict[int, tuple[int, str]]) -> dict[str, Any]:
        """Numbers on layers and activations, read from their device in two transfers."""
        layers, numbers = [], []
        for layer in _spaced(found.layers, _MOST):
            # Of a recurrence the last call: at the first its state is still what it was given.
            node, saved, _ = layer.calls[-1]
            x = node.saved(saved)
            moments = self._moments(x, layer.kind == "Convolution") if x is not None and x.numel() else None
            name = self._name(layer.weight, held)
            equal = self._equal(layer.weight) if not exam.number or name in self._alike else None
            numbers += [*(moments or ()), *(() if equal is None else equal)]
            layers.append(
                {
                    "name": name,
                    "bias": None if layer.bias is None else self._name(layer.bias, held),
                    "kind": layer.kind,
                    "raw": layer.raw,
                    "flipped": layer.flipped,
                    "depth": layer.calls[0][2],
                    "deepest": layer.calls[-1][2],
                    "calls": len(layer.calls),
                    "shape": list(layer.weight.shape),
                    "gradients": [None] * min(len(layer.calls), _CALLS),
                    "moments": moments is not None,
                    "equal": equal is not None,
                }
            )
        units, masks = [], []
        for activation in _spaced([a for a in found.activations if a.kind not in OTHERS], _MOST):
            looks = [self._seen(activation, node) for node, _ in _spaced(activation.calls, _CALLS)]
            seen = [look for look in looks if look is not None]
            if not seen:
                continue
            flats = [flat for flat, _, _ in seen]
            numbers.append(self.torch.stack(flats).mean() if len(flats) > 1 else flats[0])
            fired = [mask for _, mask, _ in seen if mask is not None]
            fired = [mask for mask in fired if mask.shape == fired[0].shape]
            if fired:
                masks.append(self.torch.stack(fired).any(dim=0) if len(fired) > 1 else fired[0])
            units.append(
                {
                    "layer": self._name(activation.layer.weight, held),
                    "kind": activation.kind,
                    "depth": activation.calls[0][1],
                    "hidden": activation.hidden,
                    "gate": activation.gate,
                    "rows": min(rows for _, _, rows in seen),
                    "fires": bool(fired),
                }
            )
        others = [
            {"layer": self._name(a.layer.weight, held), "kind": a.kind, "depth": a.calls[0][1], "hidden": a.hidden}
            for a in found.activations if a.kind in OTHERS
        ]  # fmt: skip
        self._fill(layers, units, self._numbers(numbers), self._masks(masks))
        return {"number": exam.number, "layers": layers, "units": units, "others": others[:_MOST], "norms": found.norms}

    def _fill(
        self, layers: list[dict[str, Any]], units: list[dict[str, Any]], numbers: Sequence[float], masks: Sequence[Any]
    ) -> None:
        values, lives = iter(numbers), iter(masks)
        for entry in layers:
            if entry.pop("moments"):
                variance, square = next(values), next(values)
                entry["spread"] = _number(math.sqrt(max(variance, 0.0)))
                entry["rms"] = _number(math.sqrt(max(variance + square, 0.0)))
            if entry.pop("equal"):
                rows, columns = next(values), next(values)
                entry["rows_differ"], entry["columns_differ"] = _number(rows), _number(columns)
                entry["weight"] = _number(next(values))
                if not rows * columns:  # whether it remains so is worth asking again
                    self._alike.add(entry["name"])
        for entry in units:
            entry["flat"] = _number(next(values))
            if entry.pop("fires"):
                key = entry["layer"], entry["kind"]
                mask = next(lives)
                life = self._lives.get(key)
                if life is None or len(life.quiet) != len(mask):
                    life = self._lives[key] = _Lives(len(mask))
                entry.update(life.see(mask, entry["rows"]))

    def _moments(self, x: Tensor, channels: bool) -> tuple[Tensor, Tensor]:
        """The mean over features of their variance, and of the square of their mean, over a sample of rows."""
        x = _sample(x, channels)
        if x.dim() < 2 or (x.shape[0] < 2 and x.dim() == 2):
            flat = x.reshape(-1)
            return flat.var(correction=0), flat.mean().square()
        dims = [d for d in range(x.dim()) if d != (1 if channels else x.dim() - 1)]
        mean = x.mean(dim=dims, keepdim=True)
        return (x - mean).square().mean(), mean.square().mean()  # a third of the time that var_mean takes

    def _equal(self, weight: Any) -> tuple[Tensor, Tensor, Tensor] | None:
        """How much the rows of a weight differ from each other, how much its columns do, and its size."""
        if weight.dim() < 2 or not weight.numel() or not weight.is_floating_point():
            return None
        w = weight.detach()
        w = w[:64, :64].float()
        return (w - w[:1]).abs().amax(), (w - w[:, :1]).abs().amax(), w.square().mean().sqrt()

    def _seen(self, activation: Activation, node: Node) -> tuple[Tensor, Tensor | None, int] | None:
        """Share of an activation's outputs at its flat ends, which units fired (of those that can be silent), rows."""
        y = node.saved("result")
        edge = 0.0
        if y is None:
            y = node.saved("self")
            edges = [getattr(node.fn, f"_saved_{name}", None) for name in ("threshold", "min_val", "min")]
            edge = next((float(e) for e in edges if isinstance(e, int | float)), math.nan)
            if edge != 0 or y is None:
                return None  # its lower end is no zero
        if not y.dim() or not y.numel():
            return None
        channels = activation.layer.kind == "Convolution" and y.dim() > 2
        rows = int(y.shape[0])
        y = _sample(y, channels)
        if activation.kind in SIGMOIDS:
            centred = y if activation.kind == "Tanh" else 2 * y - 1
            return (centred.square() > _FLAT).mean(dtype=self.torch.float32), None, rows
        over = ~(y <= edge)  # what is not a number is not silent
        flat = (~over).mean(dtype=self.torch.float32)
        axis = 1 if channels else y.dim() - 1
        dims = [d for d in range(y.dim()) if d != axis]
        return flat, over.any(dim=dims) if dims else over, rows

    # backward

    def _listen(self, found: Structure) -> tuple[list[tuple[int, int, Tensor]], list[Any]]:
        """Have the squared norm of the gradient at each layer's output taken as the backward pass comes by."""
        arrived: list[tuple[int, int, Tensor]] = []
        handles = []
        for i, layer in enumerate(_spaced(found.layers, _MOST)):
            for j, (node, _, _) in enumerate(_spaced(layer.calls, _CALLS)):
                handles.append(node.fn.register_prehook(_listener(arrived, i, j)))
        return arrived, handles

    # numbers

    def _name(self, parameter: Any, held: dict[int, tuple[int, str]]) -> str:
        known = held.get(id(parameter))
        name = known[1] if known is not None else self.names(parameter)
        return name or f"leaf {id(parameter):x}"

    def _name_late(self, data: dict[str, Any], nameless: dict[str, Any]) -> None:
        """Name what belongs to nobody before its first backward pass: leaves of a training without an optimizer."""
        if not nameless:
            return
        held = self._held()
        names = {name: held[id(p)][1] for name, p in nameless.items() if id(p) in held}
        for entry in data["layers"]:
            entry["name"], entry["bias"] = (names.get(entry[key], entry[key]) for key in ("name", "bias"))
        for entry in (*data["units"], *data["others"]):
            entry["layer"] = names.get(entry["layer"], entry["layer"])
        for name, kind in list(self._lives):
            if name in names:
                self._lives[names[name], kind] = self._lives.pop((name, kind))

    def _held(self) -> dict[int, tuple[int, str]]:
        """For each tensor in training the index of its course and its name."""
        return {
            id(p): (index, name) for index, names, tensors in self.courses()
            for name, p in zip(names, tensors, strict=True)
        }  # fmt: skip

    def _numbers(self, scalars: Sequence[Tensor]) -> list[float]:
        """Scalars as numbers, in one transfer where they lie on one device."""
        if not scalars:
            return []
        if len({s.device for s in scalars}) > 1:
            return [float(s) for s in scalars]
        values: list[float] = self.torch.stack([s.float() for s in scalars]).tolist()
        return values

    def _masks(self, masks: Sequence[Tensor]) -> list[NDArray[np.bool_]]:
        """Masks as arrays."""
        if not masks:
            return []
        if len({m.device for m in masks}) > 1:
            return [m.cpu().numpy() for m in masks]
        flat = self.torch.cat(list(masks)).cpu().numpy()
        return np.split(flat, np.cumsum([len(m) for m in masks])[:-1])


class _Lives:
    """For each unit of a layer, how many examinations it has been silent for."""

    def __init__(self, units: int) -> None:
        self.quiet = np.zeros(units, np.int32)
        self.ever = np.zeros(units, np.bool_)
        self.rows: list[int] = []

    def see(self, fired: NDArray[np.bool_], rows: int) -> dict[str, Any]:
        """One more examination; shares of units silent in it, silent in the last few, and never heard."""
        self.quiet = np.where(fired, 0, self.quiet + 1).astype(np.int32)
        self.ever |= fired
        self.rows = [*self.rows[-_DEAD + 1 :], rows]
        return {
            "units": len(fired),
            "silent": _number(float((self.quiet > 0).mean())),
            "dead": _number(float((self.quiet >= _DEAD).mean())),
            "never": _number(float((~self.ever).mean())),
            "seen": sum(self.rows),
        }


def _listener(arrived: list[tuple[int, int, Tensor]], i: int, j: int) -> Callable[[Any], None]:
    def listen(gradients: Any) -> None:
        # Whatever goes wrong here would go wrong in the script's backward pass.
        try:
            gradient = gradients[0]
            if gradient is not None and gradient.numel():
                gradient = gradient.detach()
                arrived.append((i, j, _sample(gradient, False).square().mean() * gradient.numel()))
        except Exception:
            return

    return listen


def _sample(x: Tensor, channels: bool) -> Tensor:
    """At most `_NUMBERS` numbers of a tensor, by evenly spaced rows and then places, as float."""
    if not channels and x.dim() > 2 and x.is_contiguous():
        x = x.view(-1, x.shape[-1])
    over = -(-x.numel() // _NUMBERS)
    if over > 1 and x.dim():
        rows = min(over, max(x.shape[0] // 8, 1))
        x = x[::rows]
        over = -(-x.numel() // _NUMBERS)
        if over > 1 and x.dim() > 2:
            # Not in step with rows whose length is a power of two.
            x = x[..., :: over | 1] if channels else x[:, :: over | 1]
    return x if x.dtype.is_floating_point and x.element_size() > 2 else x.float()


def _spaced(things: Sequence[_T], most: int) -> list[_T]:
    """At most `most` of them, evenly spaced, the first and the last among them."""
    if len(things) <= most:
        return list(things)
    return [things[round(i * (len(things) - 1) / (most - 1))] for i in range(most)]


def _number(value: float) -> float | None:
    """Six digits of a number, None for one that is not finite."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
