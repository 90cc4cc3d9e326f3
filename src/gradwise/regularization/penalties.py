"""Penalties for a loss term, and the step that makes weights exactly zero."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from gradwise.regularization.groups import Groups, decay_groups


def penalty(
    model: nn.Module | Groups | Iterable[Tensor], l1: float = 0.0, l2: float = 0.0, *, everything: bool = False
) -> Tensor:
    """The elastic net as a term of the loss: l1·Σ|w| + l2·Σw².

    There is no ½ before the squares: l2 = λ pulls as torch's `weight_decay` = 2λ does (for plain SGD; adaptive rules
    rescale the pull of a loss term, but not that of decoupled decay). The l1 term alone drives weights towards zero but
    not onto it, for its gradient never vanishes; `prox_l1_` does.

    Args:
        model: a model, of which that is summed what `decay_groups` lets decay; or groups made before, which saves
            looking through the model each time; or the tensors themselves.
        l1: λ of the absolute values, at least 0.
        l2: λ of the squares, at least 0.
        everything: all parameters that are trained, also biases and normalization.

    Returns:
        A scalar to add to the loss; in float32 where the weights have less.

    Raises:
        ValueError: a coefficient below 0.

    Example:
        >>> model = nn.Linear(2, 1)
        >>> _ = nn.init.constant_(model.weight, -3.0)
        >>> penalty(model, l1=0.1, l2=0.01)
        tensor(0.7800, grad_fn=<AddBackward0>)

    Source:
        Zou & Hastie, Regularization and variable selection via the elastic net, 2005.
    """
    if not (l1 >= 0 and l2 >= 0):
        raise ValueError(f"penalty: l1 and l2 must be at least 0, got l1={l1!r}, l2={l2!r}")
    tensors = _penalized(model, everything)
    if not tensors:
        return torch.zeros(())
    total = torch.zeros((), device=tensors[0].device, dtype=_exact(tensors[0]))
    for w in tensors:
        size = (w.abs() if w.is_complex() else w).to(_exact(w))
        term = l1 * size.abs().sum() if l1 else torch.zeros_like(total)
        term = term + l2 * size.square().sum() if l2 else term
        total = total + term.to(total)
    return total


def _penalized(model: nn.Module | Groups | Iterable[Tensor], everything: bool) -> list[Tensor]:
    if isinstance(model, nn.Module):
        model = decay_groups(model, weight_decay=1.0)
    if isinstance(model, Groups):
        return [p for group in model if everything or group["weight_decay"] for p in group["params"]]
    return list(model)


def _exact(tensor: Tensor) -> torch.dtype:
    return torch.promote_types(tensor.abs().dtype if tensor.is_complex() else tensor.dtype, torch.float32)


@torch.no_grad()
def prox_l1_(parameters: Iterable[Tensor], amount: float) -> None:
    """Shrink towards zero by `amount` and stop there, in place: sign(w)·max(|w| − amount, 0).

    The proximal step of l1: `prox_l1_(weights, η * l1)` after each gradient step with rate η, on a loss without the l1
    term, minimizes loss + l1·Σ|w|, and its zeros are zeros. For rules with a rate of each weight's own (Adam) the same
    amount for all is the usual approximation.

    Args:
        parameters: tensors, mostly the weights that decay.
        amount: rate × l1, at least 0.

    Raises:
        ValueError: an amount below 0.

    Example:
        >>> w = torch.tensor([0.3, -0.05, -1.0])
        >>> prox_l1_([w], 0.1)
        >>> w
        tensor([ 0.2000,  0.0000, -0.9000])

    Source:
        Daubechies, Defrise & De Mol, An iterative thresholding algorithm for linear inverse problems, 2004.
    """
    if not amount >= 0:
        raise ValueError(f"prox_l1_: amount must be at least 0, got {amount!r}")
    for w in [parameters] if isinstance(parameters, Tensor) else parameters:
        w.sub_(w.clamp(-amount, amount))
