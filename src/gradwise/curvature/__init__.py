"""Curvature: Hessian-vector products of a loss, both ends of its spectrum, and what kind of point training is at.

>>> import torch
>>> from gradwise.curvature import critical_point
>>> x = torch.linspace(-1, 1, 16).reshape(-1, 1)
>>> net = torch.nn.Sequential(torch.nn.Linear(1, 2, bias=False), torch.nn.Tanh(), torch.nn.Linear(2, 1, bias=False))
>>> for p in net.parameters():
...     _ = torch.nn.init.zeros_(p)
>>> found = critical_point(lambda: torch.nn.functional.mse_loss(net(x), x), net)
>>> found.kind, found.escape.lowers
('saddle', True)
"""

from __future__ import annotations

from gradwise.curvature.escape import Escape, try_escape
from gradwise.curvature.hessian import Hessian
from gradwise.curvature.lanczos import Eigenvalue, Spectrum, extremes
from gradwise.curvature.newton import Newton, newton_step
from gradwise.curvature.quadrature import SpectralDensity, spectral_density
from gradwise.curvature.verdict import CriticalPoint, End, Measured, critical_point, edge_of_stability

__all__ = [
    "CriticalPoint",
    "Eigenvalue",
    "End",
    "Escape",
    "Hessian",
    "Measured",
    "Newton",
    "SpectralDensity",
    "Spectrum",
    "critical_point",
    "edge_of_stability",
    "extremes",
    "newton_step",
    "spectral_density",
    "try_escape",
]
