"""What a parameter is to its model: a weight, a bias, part of a normalization, an embedding, a gain, a slope."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

WEIGHT, BIAS, NORM, EMBEDDING, GAIN, SLOPE = "weight", "bias", "normalization", "embedding", "gain", "slope"

_NORMS = (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
_LAYERS = (nn.Linear, nn.Bilinear, _ConvNd, nn.RNNBase, nn.RNNCellBase, nn.MultiheadAttention)
_NORM_NAME = re.compile(r"norm(\d?d)?$", re.IGNORECASE)  # LlamaRMSNorm, LayerNorm2d; not NormedLinear
_BIAS_NAME = re.compile(r"(^|_)bias(_|$)")  # bias, in_proj_bias, bias_hh_l0
_WEIGHT_NAME = re.compile(r"^(w|weights?|coef(ficients?)?)$", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Parameter:
    """A parameter of a model, once, however often it is used.

    Attributes:
        names: all its names; tied parameters have several.
        roles: what it is under each of them.
    """

    tensor: nn.Parameter
    names: tuple[str, ...]
    roles: tuple[str, ...]

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]


def parameters(model: nn.Module) -> list[Parameter]:
    """Every parameter of a model in order of registration.

    Raises:
        ValueError: a lazy module has not seen its first batch yet.
    """
    found: dict[nn.Parameter, list[tuple[str, str]]] = {}
    for name, role, tensor in _uses(model):
        if isinstance(tensor, nn.UninitializedParameter):
            raise ValueError(f"{name} has no shape yet: show the lazy module a batch first")
        found.setdefault(tensor, []).append((name, role))
    return [Parameter(tensor, *zip(*uses, strict=True)) for tensor, uses in found.items()]


def _uses(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, tensor in module.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{prefix}.{name}" if prefix else name, role_of(module, name, tensor), tensor


def role_of(module: nn.Module, name: str, tensor: nn.Parameter) -> str:
    """What parameter `name` of a module is: by the module's type, then by its name, then by its shape."""
    if isinstance(module, _NORMS) or _NORM_NAME.search(type(module).__name__):
        return NORM
    if _BIAS_NAME.search(name):
        return BIAS
    if isinstance(module, _EMBEDDINGS):
        return EMBEDDING
    if isinstance(module, nn.PReLU):
        return SLOPE
    if isinstance(module, _LAYERS) or _WEIGHT_NAME.search(name):
        return WEIGHT
    vector = (
        sum(size > 1 for size in tensor.shape) <= 1
    )  # a scale for each channel, a token: (C,), (C, 1, 1), (1, 1, C)
    return GAIN if vector else WEIGHT
