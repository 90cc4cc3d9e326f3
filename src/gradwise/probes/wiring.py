"""Who trains what: parameters that get a gradient and no optimizer, and parameters that have one and get no gradient.

Both are plain facts of the program, seen from the graphs of examined losses. What isn't seen there is why a parameter
gets no gradient: because nothing uses it, or because the path from it to the loss is cut. For that, and only where
there are such parameters, a hook listens which modules run between two backward passes of an examination.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gradwise.probes import places
from gradwise.probes.examinations import Exam
from gradwise.probes.flow import standing
from gradwise.probes.graph import Graph
from gradwise.probes.names import Names
from gradwise.probes.ownership import Loaded, modules_of, owners, sampled
from gradwise.probes.patches import Patches
from gradwise.probes.recorder import Recorder
from gradwise.probes.registry import Registry
from gradwise.probes.tracked import Tracked

if TYPE_CHECKING:
    from torch import Tensor

_NAMED = 12
_RUNS = 4000
# Steps without a gradient after which it is told.
_STEPS = 2


class Known:
    """Tensors by identity, without keeping them alive; each with a few of its numbers when it was added."""

    def __init__(self) -> None:
        self._refs: dict[int, tuple[weakref.ref[Any], tuple[float, ...]]] = {}

    def __contains__(self, tensor: Any) -> bool:
        found = self._refs.get(id(tensor))
        return found is not None and found[0]() is tensor

    def add(self, tensor: Any, numbers: bool = False) -> None:
        """Know a tensor from now on."""
        if tensor not in self:
            self._refs[id(tensor)] = weakref.ref(tensor), sampled(tensor) if numbers else ()

    def changed(self, tensor: Any) -> bool:
        """Whether its numbers are others than when it was added."""
        return tensor in self and sampled(tensor) != self._refs[id(tensor)][1]

    def living(self) -> list[Any]:
        """Those that are alive."""
        return [t for t in (ref() for ref, _ in self._refs.values()) if t is not None]


@dataclass(slots=True)
class _Window:
    """What ran between two backward passes: kind (whether it reaches the loss), with gradient or not, where."""

    suspects: dict[int, str]
    others: set[int]
    runs: list[tuple[bool, bool, str, Any]] = field(default_factory=list)

    def cut(self) -> tuple[bool, list[str], Any]:
        """Whether the first module that reaches the loss came right after some that don't; those, and where.

        A head that nothing uses runs after what reaches the loss. One of an evaluation runs without gradient, and so
        does all else there.
        """
        evaluated = any(reaches and not grad for reaches, grad, _, _ in self.runs)
        before: list[tuple[str, Any]] = []
        for reaches, grad, name, place in self.runs:
            if reaches and grad:
                break
            if reaches:
                before = []
            elif grad or not evaluated:
                before.append((name, place))
        else:
            return False, [], None
        return bool(before), list(dict.fromkeys(name for name, _ in before)), before[-1][1] if before else None


class Wiring:
    """An examiner that records "unowned" and "unreached", whenever what they say changes."""

    def __init__(self, torch: ModuleType, recorder: Recorder, registry: Registry, names: Names) -> None:
        self.torch, self.recorder, self.registry, self.names = torch, recorder, registry, names
        self.loaded = Loaded()
        self._hooks = sys.modules["torch.nn.modules.module"]
        self._reached, self._owned, self._lost, self._idle = Known(), Known(), Known(), Known()
        self._copies = Known()
        self._window: _Window | None = None
        self._hook: Any = None
        self._told: dict[Any, Any] = {}
        self._standing: dict[int, str] = {}
        self._cuts: dict[int, tuple[list[str], Any]] = {}
        self._ran: set[str] = set()

    def install(self, torch: ModuleType, patches: Patches) -> None:
        """Begin."""
        self.loaded.install(torch, patches)
        patches.keep_compiler_out(self._runs)
        patches.on_undo(self._unhook)

    def before(self, exam: Exam) -> None:
        """Note what this loss depends on."""
        self._close_window()
        graph = exam.graph
        for leaf in graph.leaves():
            self._reached.add(leaf)
        exam.notes["wiring"] = self._orphans(graph) if graph.whole else []
        exam.notes["listen"] = graph.whole and not any("Compiled" in node.name for node in graph.nodes)

    def after(self, exam: Exam) -> None:
        """By now the optimizers made before this pass are known."""
        for tracked in self.registry.all:
            for parameter in tracked.parameters():
                self._owned.add(parameter)
        self._unowned(exam)
        waiting: list[Any] = []
        for tracked in self.registry.all:
            waiting += self._unreached(tracked, exam)
        if waiting and exam.notes["listen"]:
            self._listen(waiting)

    def finish(self) -> None:
        """The run ends."""
        self._unhook()

    # parameters that no optimizer holds

    def _orphans(self, graph: Graph) -> list[tuple[weakref.ref[Any], str]]:
        """Parameters of this graph that no optimizer was known to hold, with how they stand to those held."""
        kind = self.torch.nn.Parameter
        held = {id(p) for t in self.registry.all for p in t.parameters()}
        held |= {id(p) for made in self.registry.made if (o := made.ref()) is not None
                 for g in getattr(o, "param_groups", ()) for p in g["params"]}  # fmt: skip
        lost = [p for p in graph.leaves() if isinstance(p, kind) and id(p) not in held and p not in self._owned]
        if not lost or not held:
            return []
        ids = {id(p) for p in lost}
        how = standing(graph, ids.__contains__, held.__contains__)
        return [(weakref.ref(p), how) for p in lost]

    def _unowned(self, exam: Exam) -> None:
        for reference, how in exam.notes["wiring"]:
            parameter = reference()
            if parameter is not None and parameter not in self._owned:
                if parameter not in self._lost and self._is_copy(parameter):
                    self._copies.add(parameter)
                self._lost.add(parameter, numbers=True)
                # What stands within once stays so: another loss may not use all.
                known = self._standing.get(id(parameter))
                self._standing[id(parameter)] = "within" if "within" in (how, known) else how
        lost = [p for p in self._lost.living() if p not in self._owned]
        # What changes without an optimizer is trained by someone else (a running average, a copy now and then).
        lost = [p for p in lost if p not in self._copies and not self._lost.changed(p)]
        if self._copies.living() and not any(len(set(sampled(p))) > 1 for p in lost):
            lost = []  # beside copies, zeros and ones are the copy's too
        if [id(p) for p in lost] != self._told.get("unowned", []):
            self._told["unowned"] = [id(p) for p in lost]
            self.recorder.event("unowned", exam.step, data=self._of_lost(lost))

    def _is_copy(self, parameter: Tensor) -> bool:
        """Whether a parameter that is trained has the same numbers: this is a copy of it."""
        return self._is_copy_of_reached(parameter, self._owned.living())

    def _of_lost(self, lost: Sequence[Any]) -> dict[str, Any]:
        held = self._owned.living()
        both = owners(self.torch, [*lost, *held]) if lost else {}
        found = {id(p): both[id(p)] for p in lost if id(p) in both}
        loaded = self.loaded.parameters() if lost else set()
        return {
            "parameters": [self._name(p, found) for p in lost[:_NAMED]],
            "tensors": len(lost),
            "elements": sum(p.numel() for p in lost),
            "held_elements": sum(p.numel() for p in held),
            # Where an input is optimized through a model, the model's own parameters are left alone on purpose.
            "held_in_modules": sum(id(p) in both for p in held),
            "in_modules": len(found),
            "modules": list(dict.fromkeys(o.root for o in found.values())),
            "hidden": next((o.hidden for o in found.values() if o.hidden), ""),
            "loaded": sum(id(p) in loaded for p in lost),
            "standing": sorted({self._standing.get(id(p), "") for p in lost}),
        }

    def _name(self, parameter: Any, found: dict[int, Any]) -> str:
        owner = found.get(id(parameter))
        return self.names(parameter) or (f"{owner.root}.{owner.name}" if owner else f"tensor {tuple(parameter.shape)}")

    # parameters that no loss reaches

    def _unreached(self, tracked: Tracked, exam: Exam) -> list[Any]:
        """Tell of what this optimizer holds and no loss has reached so far; returns it."""
        held = tracked.parameters()
        trainable = [p for p in held if p.requires_grad]
        for p in trainable:
            if p.grad is not None:
                self._reached.add(p)
        idle = [p for p in trainable if p not in self._reached]
        for p in idle:
            if p not in self._idle and self._is_copy_of_reached(p, trainable):
                self._copies.add(p)
            self._idle.add(p, numbers=True)
        idle = [p for p in idle if p not in self._copies and not self._idle.changed(p)]
        frozen = [p for p in held if not p.requires_grad]
        mistyped = self._mistyped(frozen) if frozen else []
        if tracked.steps >= _STEPS or tracked.index in self._told:
            self._tell_unreached(tracked, exam, idle, len(trainable), mistyped)
        return idle

    def _is_copy_of_reached(self, parameter: Any, held: Sequence[Any]) -> bool:
        numbers, shape = sampled(parameter), parameter.shape
        varied = len(set(numbers)) > 1
        return varied and any(p in self._reached and p.shape == shape and sampled(p) == numbers for p in held)

    def _mistyped(self, frozen: Sequence[Any]) -> list[str]:
        """Where the script meant to unfreeze: an attribute torch doesn't know, or the module's in place of its own."""
        wrong = [self._name(p, {}) for p in frozen if getattr(p, "__dict__", {}).get("require_grad") is True]
        ids = {id(p) for p in frozen}
        for module in self._modules():
            said = module.__dict__.get("requires_grad") is True or module.__dict__.get("require_grad") is True
            if said:
                wrong += [self._name(p, {}) for m in modules_of(module)
                          for p in m._parameters.values() if id(p) in ids]  # fmt: skip
        return list(dict.fromkeys(wrong))

    def _tell_unreached(
        self, tracked: Tracked, exam: Exam, idle: Sequence[Any], trainable: int, mistyped: Sequence[str]
    ) -> None:
        cut, where = self._cuts.get(tracked.index, ([], None)) if idle else ([], None)
        state = [id(p) for p in idle], cut, mistyped
        if state == self._told.get(tracked.index, ([], [], [])):
            return
        self._told[tracked.index] = state
        loaded = self.loaded.parameters() if idle else set()
        data = {
            "parameters": [self._name(p, {}) for p in idle[:_NAMED]],
            "tensors": len(idle),
            "trainable": trainable,
            "loaded": sum(id(p) in loaded for p in idle),
            "ran": sorted(self._ran),
            "cut": cut,
            "place": places.described(where),
            "mistyped": list(mistyped[:_NAMED]),
        }
        self.recorder.event("unreached", exam.step, tracked.index, data)

    # which modules run

    def _modules(self) -> list[Any]:
        roots = self.names.roots()
        return list({id(m): m for root in roots for m in modules_of(root)}.values())

    def _listen(self, waiting: Sequence[Any]) -> None:
        """Listen which modules run until the next backward pass."""
        ids = {id(p) for p in waiting}
        suspects: dict[int, str] = {}
        others: set[int] = set()
        for module in self._modules():
            mine = [p for p in module._parameters.values() if p is not None]
            if any(id(p) in ids for p in mine):
                name = next(self._name(p, {}) for p in mine if id(p) in ids)
                suspects[id(module)] = f"{name.rpartition('.')[0] or name} ({type(module).__name__})"
            elif any(p in self._reached for p in mine):
                others.add(id(module))
        self._unhook()
        if suspects:
            self._window = _Window(suspects, others)
            self._hook = self._hooks.register_module_forward_hook(self._runs)

    def _runs(self, module: Any, _args: Any, _output: Any) -> None:
        window = self._window
        if window is None or len(window.runs) >= _RUNS:
            return
        name = window.suspects.get(id(module))
        if name is not None:
            with suppress(Exception):
                window.runs.append((False, self.torch.is_grad_enabled(), name, places.here()))
        elif id(module) in window.others:
            window.runs.append((True, self.torch.is_grad_enabled(), "", None))

    def _close_window(self) -> None:
        window, self._window = self._window, None
        self._unhook()
        if window is None:
            return
        self._ran |= {name for reaches, grad, name, _ in window.runs if not reaches and grad}
        cut, names, place = window.cut()
        if cut:
            for tracked in self.registry.all:
                if tracked.ref() is not None:
                    self._cuts.setdefault(tracked.index, (names, place))

    def _unhook(self) -> None:
        hook, self._hook = self._hook, None
        if hook is not None:
            hook.remove()
