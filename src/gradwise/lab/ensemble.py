"""Nets of one make trained side by side: one batched pass for all of them, each copy under settings of its own."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state


class Ensemble:
    """The same nets several times over, so that each copy of them can be trained in another way.

    A pass computes the loss of every net by itself (`torch.func.vmap`), so that training a hundred small ones takes
    little longer than training one.

    Args:
        nets: the members: nets of one make, without buffers.
        loss: from outputs and targets of one net to a scalar.
        copies: how often the members are there; all copies begin alike.

    Raises:
        ValueError: there are no nets, or they have buffers (running statistics can't be kept per net here).

    Example:
        >>> nets = [nn.Linear(2, 1), nn.Linear(2, 1), nn.Linear(2, 1)]
        >>> both = Ensemble(nets, nn.functional.mse_loss, copies=2)
        >>> optimizer = torch.optim.SGD([{"params": both.parameters(k), "lr": lr} for k, lr in enumerate((0.1, 0.01))])
        >>> losses = both.backward(torch.ones(4, 2), torch.zeros(4, 1))
        >>> optimizer.step()
        >>> losses.shape, bool((both.loss(torch.ones(4, 2), torch.zeros(4, 1)) < losses).all())
        (torch.Size([2, 3]), True)
    """

    def __init__(self, nets: Sequence[nn.Module], loss: Callable[[Tensor, Tensor], Tensor], copies: int = 1) -> None:
        if not nets or any(True for net in nets for _ in net.buffers()):
            raise ValueError("Ensemble: takes one net or more, and none with buffers (such as batch normalization)")
        self.members, self.copies = len(nets), copies
        stacked, _ = stack_module_state(list(nets))
        self._weights = {
            name: p.detach().repeat(copies, *[1] * (p.ndim - 1)).requires_grad_() for name, p in stacked.items()
        }
        for p in self._weights.values():
            p.grad = torch.zeros_like(p)
        self._net = copy.deepcopy(nets[0]).to("meta")
        self._loss = loss

    def parameters(self, copy: int) -> list[Tensor]:
        """The parameters of one copy for an optimizer, (members, …) each; for rules that go element by element.

        They share memory with the ensemble's, and their gradients with its gradients.
        """
        own = slice(copy * self.members, (copy + 1) * self.members)
        views = []
        for p in self._weights.values():
            view = p.detach()[own].requires_grad_()
            assert p.grad is not None
            view.grad = p.grad[own]
            views.append(view)
        return views

    def predict(self, x: Tensor, shared: bool = True) -> Tensor:
        """Outputs, (copies, members, rows, …); `x` is the rows for all, or (nets, rows, …) with `shared=False`."""
        with torch.no_grad():
            return self._by_copy(self._each(self._outputs, shared)(self._weights, x))

    def loss(self, x: Tensor, y: Tensor, shared: bool = True) -> Tensor:
        """The loss of each net, (copies, members)."""
        with torch.no_grad():
            return self._by_copy(self._each(self._lost, shared)(self._weights, x, y))

    def backward(self, x: Tensor, y: Tensor, shared: bool = True) -> Tensor:
        """The loss of each net, (copies, members); its gradients are where the optimizers find them."""
        for p in self._weights.values():
            assert p.grad is not None
            p.grad.zero_()
        losses = self._each(self._lost, shared)(self._weights, x, y)
        # Each term depends on its own net alone, so this is every net's own gradient.
        losses.sum().backward()  # type: ignore[no-untyped-call]
        return self._by_copy(losses.detach())

    def _outputs(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        outputs: Tensor = functional_call(self._net, weights, (x,))
        return outputs

    def _lost(self, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return self._loss(self._outputs(weights, x), y)

    def _each(self, function: Callable[..., Tensor], shared: bool) -> Callable[..., Tensor]:
        rows = None if shared else 0
        arguments = 2 if function == self._lost else 1
        batched: Callable[..., Tensor] = torch.vmap(function, in_dims=(0, *[rows] * arguments))
        return batched

    def _by_copy(self, values: Tensor) -> Tensor:
        return values.reshape(self.copies, self.members, *values.shape[1:])
