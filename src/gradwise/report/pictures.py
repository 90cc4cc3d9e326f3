"""Pictures of a search, from its report as data: Optuna's, in our look."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from gradwise.figures import BLUE, TEMPLATE

if TYPE_CHECKING:
    import optuna
    import plotly.graph_objects as go

Trial = Mapping[str, Any]

# Fewer trials say nothing of importance or of slopes.
_LEAST = 4
# A picture of each parameter gets small beyond so many.
_MOST = 8
# From faint to plain on light and dark ground.
_SHADES = [[0.0, "#b9d3e6"], [1.0, BLUE]]


def pictures(report: Mapping[str, Any]) -> list[tuple[go.Figure, str]]:
    """Each picture with what it shows, in a sentence; none that says nothing.

    Args:
        report: what was found (`gradwise.search.account`).
    """
    done = [t for t in report["trials"] if t["state"] == "complete" and _finite(t.get("value"))]
    if not done:
        return []
    with _quietly():
        return list(_made(done, bool(report["maximize"]), str(report["selected_on"])))


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what Optuna says of its experimental parts."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)


def _made(done: Sequence[Trial], maximize: bool, target: str) -> Iterator[tuple[go.Figure, str]]:
    from optuna import visualization

    study = _study(done, maximize)
    varied = [name for name, values in _values(done).items() if len(set(map(str, values))) > 1]
    yield (
        _ours(visualization.plot_optimization_history(study, target_name=target)),
        "Every trial that has a value, and the best so far.",
    )
    if len(done) < _LEAST or not varied:
        return
    if len(varied) > 1:
        figure = _tried(lambda: _importances(study, target))
        if figure is not None:
            _ours(figure).update_xaxes(title_text="share of the differences").update_yaxes(title_text="")
            yield figure, "How much of the differences between trials each parameter accounts for (PED-ANOVA)."
        figure = visualization.plot_parallel_coordinate(study, params=varied, target_name=target)
        figure = _ours(figure).update_layout(margin={"t": 48, "l": 56, "r": 56, "b": 40}, height=400)
        yield figure, "Every trial as a line through its settings; the darker, the better."
    shown = varied[:_MOST]
    figure = _ours(visualization.plot_slice(study, params=shown, target_name=target))
    figure.update_traces(marker_colorscale=_SHADES, marker_line_width=0)
    if len(shown) > 1:
        figure.update_traces(marker_showscale=False)
    more = f" (of {len(varied)} parameters {_MOST} are shown)" if len(varied) > _MOST else ""
    yield figure, f"Every trial by each of its settings{more}; the darker, the later."


def _importances(study: optuna.Study, target: str) -> go.Figure:
    from optuna import visualization
    from optuna.importance import PedAnovaImportanceEvaluator

    evaluator = PedAnovaImportanceEvaluator()
    return visualization.plot_param_importances(study, evaluator=evaluator, target_name=target)


def _tried(make: Callable[[], go.Figure]) -> go.Figure | None:
    """A picture, or None where too little differs for one."""
    try:
        return make()
    except (ValueError, RuntimeError, ZeroDivisionError):
        return None


def _ours(figure: go.Figure) -> go.Figure:
    figure.update_layout(template=TEMPLATE, title=None, hovermode="closest")
    # Not whole numbers of steps, as on most of our axes.
    return figure.update_xaxes(tickformat="", hoverformat="")


def _study(done: Sequence[Trial], maximize: bool) -> optuna.Study:
    """The trials as Optuna draws them: each parameter by its own name, whatever it is made of in the study itself."""
    import optuna

    study = optuna.create_study(direction="maximize" if maximize else "minimize")
    kinds = {name: _distribution(values) for name, values in _values(done).items()}
    for trial in done:
        params = {name: _fitting(value, kinds[name]) for name, value in trial["config"].items()}
        own = {name: kinds[name] for name in params}
        study.add_trial(optuna.trial.create_trial(params=params, distributions=own, value=trial["value"]))
    return study


def _values(done: Sequence[Trial]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for trial in done:
        for name, value in trial["config"].items():
            found.setdefault(name, []).append(value)
    return found


def _distribution(values: Sequence[Any]) -> optuna.distributions.BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    if any(isinstance(v, bool | str) for v in values):
        return CategoricalDistribution(sorted(set(map(str, values))))
    low, high = float(min(values)), float(max(values))
    return FloatDistribution(low, high, log=low > 0 and high >= 10 * low)


def _fitting(value: Any, kind: optuna.distributions.BaseDistribution) -> Any:
    from optuna.distributions import CategoricalDistribution

    return str(value) if isinstance(kind, CategoricalDistribution) else float(value)


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
