"""What losses are given: probabilities where logits belong, and shapes that broadcast against each other."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from math import prod
from typing import Any

from gradwise.probes import places
from gradwise.probes.examinations import Exam, Examinations
from gradwise.probes.graph import Graph, Node
from gradwise.probes.losses import Call, LossCalls
from gradwise.probes.recorder import Recorder
from gradwise.recording.recording import Place

# Operations that change how numbers are laid out or picked, hardly the numbers.
_LAYOUT = frozenset(
    ("Alias", "AsStrided", "Clamp", "ClampMax", "ClampMin", "Clone", "Gather", "Index", "IndexSelect", "Permute",
     "Reshape", "ReshapeAlias", "Select", "Slice", "Squeeze", "T", "ToCopy", "Transpose", "Unsqueeze", "UnsafeView",
     "View")
)  # fmt: skip
# What makes probabilities, and the losses that make their own from what they are given.
_ACTIVATIONS = frozenset(("Softmax", "Sigmoid"))
_OF_LOGITS = {
    "LogSoftmax": ("cross_entropy", _ACTIVATIONS),
    "BinaryCrossEntropyWithLogits": ("binary_cross_entropy_with_logits", _ACTIVATIONS),
    # A cross-entropy written out: of probabilities there is no other reason to take it.
    "Logsumexp": ("logsumexp", frozenset(("Softmax",))),
    # This one wants logarithms: of plain probabilities it takes no logarithm.
    "NllLoss": ("nll_loss", frozenset(("Softmax",))),
    "NllLoss2D": ("nll_loss", frozenset(("Softmax",))),
}
# Loss functions that let their arguments broadcast.
_BROADCASTING = frozenset(
    ("huber_loss", "kl_div", "l1_loss", "mse_loss", "poisson_nll_loss", "smooth_l1_loss", "soft_margin_loss")
)
# What leads from a difference to a loss written out by hand, element by element and then summed.
_ELEMENTWISE = frozenset(("Abs", "Add", "Clamp", "Div", "Mean", "Mul", "Pow", "Rsub", "Sqrt", "Sub", "Sum", "Where"))
_PROBED = 16


class LossInputs:
    """An examiner that records "loss-probabilities" and "loss-shapes", each once per place in the script."""

    def __init__(self, recorder: Recorder, losses: LossCalls, examinations: Examinations) -> None:
        self.recorder, self.losses, self.examinations = recorder, losses, examinations
        self._told: set[Any] = set()
        losses.attend(self._attending)

    def _attending(self) -> bool:
        return self.examinations.running or not self.examinations.number

    def before(self, exam: Exam) -> None:
        """Look at the loss functions' arguments and at the end of the graph."""
        calls = self.losses.calls[:]
        self.losses.calls.clear()
        for call in calls:
            if call.name in _BROADCASTING and (result := blown_up(call.given, call.target)):
                self._tell("loss-shapes", exam, call.place, call.name, call.given, call.target, result)
        found = list(doubled(exam.graph))
        for node, shape, activation in found:
            name = _OF_LOGITS[node.name][0]
            fitting = sorted((c for c in calls if c.name == name), key=lambda c: c.given != shape)
            self._probabilities(exam, activation, next(iter(fitting), None), name)
        # Where the graph doesn't tell (compiled, checkpointed), the values do.
        for call in calls if not found else ():
            if call.probabilities:
                self._probabilities(exam, "softmax", call, call.name)
        for node, given in crossed(exam.graph):
            n = given[0]
            self._tell("loss-shapes", exam, None, node.name, given, (n,) if len(given) > 1 else (n, 1), (n, n))

    def after(self, exam: Exam) -> None:
        """The calls that lead to the next pass are noted too."""
        self.losses.attend(self._attending)

    def finish(self) -> None:
        """Nothing is left to tell."""

    def _probabilities(self, exam: Exam, activation: str, call: Call | None, function: str) -> None:
        # The call that led to an examination's first pass was not noted, but the next one's is.
        if call is None and (function in self._told or (exam.number and not exam.passed)):
            return
        place = places.assigned() if call is None else call.place
        if ("probabilities", place, function) not in self._told:
            self._told |= {function, ("probabilities", place, function)}
            data = {"loss_function": function, "activation": activation.lower(), "place": places.described(place)}
            self.recorder.event("loss-probabilities", exam.step, data=data)

    def _tell(
        self, kind: str, exam: Exam, place: Place | None, function: str, given: Any, target: Any, result: Any
    ) -> None:
        by_hand = place is None
        place = place or places.assigned()
        # A last batch of another size is the same fault.
        if (kind, place, function) in self._told:
            return
        self._told.add((kind, place, function))
        data = {
            "loss_function": function,
            "by_hand": by_hand,
            "prediction": list(given),
            "target": list(target),
            "result": list(result),
            "place": places.described(place),
        }
        self.recorder.event(kind, exam.step, data=data)


def blown_up(given: tuple[int, ...], target: tuple[int, ...]) -> tuple[int, ...]:
    """What two shapes broadcast to where that has more elements than either and nobody asked for it; () otherwise.

    Who wants all pairs gives both the same number of dimensions, with ones where they are to be repeated.
    """
    if len(given) == len(target):
        return ()
    n = max(len(given), len(target))
    a, b = ((1,) * (n - len(s)) + s for s in (given, target))
    if any(i != j and 1 not in (i, j) for i, j in zip(a, b, strict=True)):
        return ()
    result = tuple(max(i, j) for i, j in zip(a, b, strict=True))
    return result if prod(result) > max(prod(given), prod(target)) else ()


def doubled(graph: Graph) -> Iterator[tuple[Node, tuple[int, ...] | None, str]]:
    """Losses of logits that are fed probabilities: the loss' node, the shape of those, the name of what made them."""
    for node in graph.nodes:
        expected = _OF_LOGITS.get(node.name)
        if expected is None or not node.inputs:
            continue
        source = given = node.inputs[0]
        while source is not None and source.name in _LAYOUT and source.inputs:
            source = source.inputs[0]
        if given is not None and source is not None and source.name in expected[1]:
            yield node, given.shape, source.name


def crossed(graph: Graph) -> Iterator[tuple[Node, tuple[int, ...]]]:
    """Differences, in losses written by hand, of a prediction with n rows and a constant that came out n by n."""
    square = [(node, node.shape) for node in graph.nodes if node.name in ("Sub", "Rsub")]
    wide = [(node, s) for node, s in square if s is not None and len(s) == 2 and s[0] == s[1] > 1]
    # A matrix of all pairs of predictions is made on purpose, and so is what stands beside it.
    if not wide or any(_of_pairs(node) for node, _ in wide):
        return
    users: dict[int, list[Node]] = {}
    for node in graph.nodes:
        for child in node.inputs:
            if child is not None:
                users.setdefault(id(child), []).append(node)
    for node, shape in wide:
        given = [child for child in node.inputs if child is not None]
        if len(given) != 1 or given[0].parameter is not None or given[0].shape not in ((shape[0],), (shape[0], 1)):
            continue
        made = given[0]
        source = made.inputs[0] if made.inputs else None
        on_purpose = made.name in ("Expand", "Unsqueeze") or (
            made.name in _LAYOUT and source is not None and len(source.shape or ()) < len(made.shape or ())
        )
        if not on_purpose and _sums_up(node, users) and any(_of_two(user) for user in users[id(node)]):
            yield node, made.shape or ()


def _of_pairs(node: Node) -> bool:
    """Whether both sides of a difference were computed: not where a mere number is taken away."""
    return sum(child is not None for child in node.inputs) > 1


def _sums_up(node: Node, users: dict[int, list[Node]]) -> bool:
    """Whether all that is made of a difference is a sum over elements, on the way to the loss."""
    queue, seen, reduced = [node], {id(node)}, False
    for this in queue:
        for user in users.get(id(this), ()):
            if user.name not in _ELEMENTWISE:
                return False
            reduced = reduced or user.name in ("Mean", "Sum")
            if id(user) not in seen:
                seen.add(id(user))
                queue.append(user)
    return reduced


def _of_two(user: Node) -> bool:
    """Whether the values say so: each element of such a matrix is one number per row less one per column."""
    with suppress(Exception):
        d = user.saved("self")
        if d is None:
            return False
        d = d[:_PROBED, :_PROBED].double()
        rest = d - d[:1] - d[:, :1] + d[0, 0]
        return bool(rest.abs().max() <= 1e-5 * d.abs().max() and d.std() > 0)
    return False
