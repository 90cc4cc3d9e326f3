"""How two sets of parameters stand to each other in the graph of a loss: which is applied to what the other made."""

from __future__ import annotations

from collections.abc import Callable

from gradwise.probes.graph import Graph, Node

# Operations that compare what they are given: one side of them is the target.
_COMPARING = frozenset(
    ("BinaryCrossEntropy", "BinaryCrossEntropyWithLogits", "CosineEmbeddingLoss", "HuberLoss", "KlDiv", "L1Loss",
     "MseLoss", "Rsub", "SmoothL1Loss", "Sub")
)  # fmt: skip
# With one input they still are not the parameter itself.
_LOOKUPS = frozenset(("Embedding", "EmbeddingBag", "IndexSelect"))


def standing(graph: Graph, first: Callable[[int], bool], second: Callable[[int], bool]) -> str:
    """Where the parameters of the `first` kind stand to those of the second (both told by identity).

    "within": they are applied to what the second made, or meet it in a product: both work for the same output.
    "before": all that they make is handed to the second.
    "target": they only meet in a comparison. "apart": not at all.
    """
    one: dict[int, bool] = {}
    two: dict[int, bool] = {}
    bare: dict[int, bool] = {}
    found = set()
    for node in graph.nodes:
        inputs = [child for child in node.inputs if child is not None]
        if node.parameter is not None:
            one[id(node)], two[id(node)] = first(id(node.parameter)), second(id(node.parameter))
            bare[id(node)] = True
            continue
        one[id(node)] = any(one.get(id(c)) for c in inputs)
        two[id(node)] = any(two.get(id(c)) for c in inputs)
        bare[id(node)] = (
            len(node.inputs) == 1 == len(inputs) and bare.get(id(inputs[0]), False) and node.name not in _LOOKUPS
        )
        found |= _meeting(node, inputs, one, two, bare)
    for kind in ("within", "before", "target"):
        if kind in found:
            return kind
    return "apart"


def _meeting(
    node: Node, inputs: list[Node], one: dict[int, bool], two: dict[int, bool], bare: dict[int, bool]
) -> set[str]:
    """How an operation brings the two together."""
    mine = [c for c in inputs if one.get(id(c)) and not two.get(id(c))]
    theirs = [c for c in inputs if two.get(id(c))]
    if not mine or not theirs:
        return set()
    if all(bare.get(id(c)) for c in mine):
        return {"within"}
    if all(bare.get(id(c)) for c in theirs):
        return {"before"}
    # Sums of losses bring everything together in the end.
    if node.shape == () and node.name in ("Add", "Sub"):
        return set()
    return {"target"} if node.name in _COMPARING else {"within"}
