"""Evaluating a user's loss function again and again without a trace: the same luck each time, and all put back."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.module import register_module_forward_pre_hook


class Luck:
    """The state of every generator that a loss function may draw from: torch's, Python's and numpy's.

    A loss with dropout is a function of the parameters only while the masks stay the same: each evaluation begins with
    the state noted here.
    """

    def __init__(self, devices: Iterable[torch.device]) -> None:
        self._cuda = sorted({d.index or 0 for d in devices if d.type == "cuda"})
        self._noted = self._now()

    def _now(self) -> tuple[Any, ...]:
        numpy = sys.modules.get("numpy")
        return (
            torch.get_rng_state(),
            [torch.cuda.get_rng_state(d) for d in self._cuda],
            random.getstate(),
            None if numpy is None else numpy.random.get_state(),
        )

    def _set(self, state: tuple[Any, ...]) -> None:
        cpu, cuda, python, numpys = state
        torch.set_rng_state(cpu)
        for device, each in zip(self._cuda, cuda, strict=True):
            torch.cuda.set_rng_state(each, device)
        random.setstate(python)
        if numpys is not None:
            sys.modules["numpy"].random.set_state(numpys)

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw what was drawn the last time; afterwards the generators are where they were."""
        before = self._now()
        self._set(self._noted)
        try:
            yield
        finally:
            self._set(before)


@contextmanager
def untouched(luck: Luck, modules: Sequence[nn.Module]) -> Iterator[None]:
    """Evaluate a loss, or differentiate it, with nothing left behind.

    - Random generators: see `Luck`.
    - Buffers (batch normalization's running statistics, a spectral norm's vectors) and the training mode of `modules`
      and of every module that runs meanwhile: put back, and written past autograd's count of versions, since a graph
      of the user's may still need them.
    - Attention runs as plain mathematics: the fused kernels, also the CPU's, have no second derivative. Neither have
      cuDNN's recurrent layers, so cuDNN is off from the first recurrent layer that runs.

    Args:
        luck: what to draw.
        modules: those known beforehand; they needn't run.
    """
    kept: dict[int, tuple[nn.Module, bool, list[tuple[str, Tensor | None, Tensor | None]]]] = {}
    # Its setter in Python may be barred (`disable_global_flags`, which torch's own tests call on import).
    cudnn, set_cudnn = torch.backends.cudnn.enabled, torch._C._set_cudnn_enabled

    def keep(module: nn.Module, _arguments: Any = None) -> None:
        if id(module) in kept:
            return
        buffers = [(n, b, None if b is None else b.detach().clone()) for n, b in module._buffers.items()]
        kept[id(module)] = module, module.training, buffers
        if isinstance(module, nn.RNNBase):
            set_cudnn(False)

    with ExitStack() as stack:
        stack.enter_context(luck.again())
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.callback(set_cudnn, cudnn)
        for module in modules:
            keep(module)
        stack.callback(register_module_forward_pre_hook(keep).remove)
        stack.callback(_put_back, kept)
        yield


def _put_back(kept: dict[int, tuple[nn.Module, bool, list[tuple[str, Tensor | None, Tensor | None]]]]) -> None:
    for module, training, buffers in kept.values():
        module.training = training
        for name, buffer, value in buffers:
            module._buffers[name] = buffer
            if buffer is not None and value is not None:
                buffer.data.copy_(value)
