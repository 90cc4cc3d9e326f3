"""gradwise: find out why a PyTorch model isn't training, and prove the fix on your own script, unchanged.

The public API, gathered; nothing is defined here, and nothing that needs torch is imported until it is used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradwise import curvature, figures, optim, regularization, schedules
    from gradwise.batched import Training
    from gradwise.finder import range_test
    from gradwise.interventions import Intervention
    from gradwise.optim.choosing import recommend
    from gradwise.optim.equivalence import equivalent
    from gradwise.regularization import average, decay_groups, early_stopping, penalty, sparsity
    from gradwise.session import Watch, watch
    from gradwise.tuner import split, tune

__version__ = "0.1.0"

_PUBLIC = {
    "watch": "gradwise.session",
    "Watch": "gradwise.session",
    "optim": "",
    "schedules": "",
    "regularization": "",
    "curvature": "",
    "figures": "",
    "decay_groups": "gradwise.regularization",
    "penalty": "gradwise.regularization",
    "sparsity": "gradwise.regularization",
    "average": "gradwise.regularization",
    "early_stopping": "gradwise.regularization",
    "range_test": "gradwise.finder",
    "tune": "gradwise.tuner",
    "split": "gradwise.tuner",
    "Training": "gradwise.batched",
    "Intervention": "gradwise.interventions",
    "equivalent": "gradwise.optim.equivalence",
    "recommend": "gradwise.optim.choosing",
}

__all__ = [
    "Intervention",
    "Training",
    "Watch",
    "__version__",
    "average",
    "curvature",
    "decay_groups",
    "early_stopping",
    "equivalent",
    "figures",
    "optim",
    "penalty",
    "range_test",
    "recommend",
    "regularization",
    "schedules",
    "sparsity",
    "split",
    "tune",
    "watch",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'gradwise' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name) if _PUBLIC[name] else import_module(f"gradwise.{name}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
