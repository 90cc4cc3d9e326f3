"""Write the reference pages that the code itself can tell: `python docs/make_reference.py`.

`tests/test_docs.py` holds the pages to what this makes of the code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

import gradwise
from gradwise import curvature, optim, regularization, schedules
from gradwise.cli import app
from gradwise.recording.signals import SIGNALS

HERE = Path(__file__).resolve().parent / "reference"

_CLI = """\
# The command line

<!-- Made by docs/make_reference.py from the commands themselves: change them, not this page. -->

`gradwise COMMAND --help` says the same. Everything after SCRIPT belongs to the script, even `--help`: options of
gradwise's own come before it. gradwise speaks on standard error, standard output is the script's.

## Exit status

| status | of `gradwise doctor` and `gradwise run` |
|---|---|
| the script's own | if the script was started; of the signal that ended the script, gradwise dies too |
| 1 | the script ended with 0 and `--fail-on` matches a finding |
| 2 | gradwise was called the wrong way; the script was not started |
| 70 | an error of gradwise's own, where there is no script whose status to give (please report it) |

"""
_SIGNALS = """\
# Signals

<!-- Made by docs/make_reference.py from gradwise/recording/signals.py: change that, not this page. -->

What a recording holds. A series belongs to one optimizer (its *source* is the optimizer's index in order of creation)
or, for validation losses, to one place in the script. Steps count optimizer steps from 0, and a value at step *t* is
what held when step *t* was taken: the loss before the update, the gradient handed over, the rate used.

Signals without a remark on when are looked at on fixed steps (0, 2, 4, then every 8th, later 64 to 128 times
per doubling of the run), and on fewer of them where that would cost more than
[the budget](../explanation/overhead.md) allows.

| signal | unit | a column for each | what it is |
|---|---|---|---|
"""
_OPTIM = """\
# Optimizers

<!-- Made by docs/make_reference.py from the docstrings in gradwise/optim: change those, not this page. -->

All are classes of `gradwise.optim` and true `torch.optim.Optimizer`s. Those that share their name with one of
`torch.optim` are drop-ins: the same arguments in the same order, defaults and errors, and state dicts that load both
ways. [How to use them](../how-to/optimizers.md), [which one](../how-to/choose-an-optimizer.md), and
[how definitions differ](../explanation/definitions.md).

"""
_METHODS = ("effective_lr", "moments", "windows", "telemetry_of", "averaged")
_SCHEDULES = """\
# Schedules

<!-- Made by docs/make_reference.py from gradwise/schedules: change that, not this page. -->

`gradwise.schedules`. [How to use them](../how-to/schedules.md), and [where frameworks
differ](../explanation/schedules.md). In formulas *t* is the step from 0; factors have no unit, steps are optimizer
steps. As JSON a schedule is an object of its name and arguments, `{"cosine": {"steps": 300, "end": 0.01}}`.

"""
_SCHEDULE_NAMES = """
    Schedule constant step multi_step exponential natural_exponential inverse_time polynomial cosine square_root sgdr
    cyclical one_cycle one_cycle_momentum warmup warmup_stable_decay rule_of_thumb function reduce_on_plateau Plateau
    PlateauState attach ScheduledLR PlateauLR
"""
_REGULARIZATION = """\
# Regularization

<!-- Made by docs/make_reference.py from gradwise/regularization: change that, not this page. -->

`gradwise.regularization`; the functions most used are there as `gradwise.decay_groups` and so on, too. [How to use
them](../how-to/regularization.md).

"""
_REGULARIZATION_NAMES = """
    decay_groups Groups check_groups penalty prox_l1_ sparsity Sparsity LayerZeros average Average early_stopping
    Stopping StoppingState
"""
_CURVATURE = """\
# Curvature

<!-- Made by docs/make_reference.py from gradwise/curvature: change that, not this page. -->

`gradwise.curvature`. [How to use it](../how-to/curvature.md), and [what kind of point training is
at](../explanation/curvature.md).

"""
_CURVATURE_NAMES = """
    critical_point CriticalPoint Measured End edge_of_stability Hessian extremes Spectrum Eigenvalue spectral_density
    SpectralDensity newton_step Newton try_escape Escape
"""


def signals() -> str:
    """The page of signals."""
    rows = (
        f"| `{s.name}` | {'–' if s.unit == '1' else s.unit} | {s.columns or '–'} | {_cell(s.meaning)} |"
        for s in SIGNALS.values()
    )
    return _SIGNALS + "\n".join(rows) + "\n"


def cli() -> str:
    """The page of commands."""
    return _CLI + "\n".join(_commands(app, "gradwise"))


def _commands(group: typer.Typer, name: str) -> Iterator[str]:
    """A section for each command of a group, the group's own options first."""
    callback = group.registered_callback
    if callback is not None and callback.callback is not None:
        words = callback.help if isinstance(callback.help, str) else None
        yield _section(name, callback.callback, words or group.info.help)
    for command in group.registered_commands:
        assert command.callback is not None
        yield _section(f"{name} {command.name or command.callback.__name__}", command.callback)
    for inner in group.registered_groups:
        assert inner.typer_instance is not None
        yield from _commands(inner.typer_instance, f"{name} {inner.name}")


def _section(name: str, function: Callable[..., Any], words: object = None) -> str:
    said = words if isinstance(words, str) else inspect.cleandoc(function.__doc__ or "")
    hints = get_type_hints(function, include_extras=True)
    arguments, options = [], []
    for parameter in inspect.signature(function).parameters.values():
        about = next((a for a in get_args(hints[parameter.name]) if isinstance(a, ArgumentInfo | OptionInfo)), None)
        if isinstance(about, ArgumentInfo):
            arguments.append((about.metavar or parameter.name.upper(), hints[parameter.name], about.help))
        elif isinstance(about, OptionInfo) and not about.hidden:
            options.append(_option(parameter, about, hints[parameter.name]))
    usage = " ".join([name, *["[OPTIONS]"] * bool(options), *(_usage(metavar, hint) for metavar, hint, _ in arguments)])
    lines = [f"## `{name}`", "", said, "", "```text", usage, "```", ""]
    if arguments or options:
        lines += ["| | default | |", "|---|---|---|"]
        lines += [f"| `{metavar}` | | {_cell(meaning or '')} |" for metavar, _, meaning in arguments]
        lines += [f"| {names} | {_cell(default)} | {_cell(meaning)} |" for names, default, meaning in options] + [""]
    return "\n".join(lines)


def _usage(metavar: str, hint: Any) -> str:
    plain = metavar.rstrip("….")
    return f"[{plain}…]" if "list" in str(hint) else plain


def _option(parameter: inspect.Parameter, about: OptionInfo, hint: Any) -> tuple[str, str, str]:
    """How an option is written, its default, what it does."""
    plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    flag = plain is bool
    # Inside Annotated, Typer's first name lands where a default would be; "--repair/--no-repair" is one switch.
    given = [n for n in (about.default, *(about.param_decls or ())) if isinstance(n, str) and n.startswith("-")]
    names = [part for n in given for part in n.split("/")] or ["--" + parameter.name.replace("_", "-")]
    value = ""
    if not flag:
        choices = re.findall(r"'([^']*)'", str(plain)) if "Literal" in str(plain) else []
        value = " " + ("|".join(choices) or about.metavar or "VALUE")
    default = ""
    if isinstance(about.show_default, str):
        default = about.show_default
    elif parameter.default not in (None, False, inspect.Parameter.empty):
        default = f"`{names[0]}`" if parameter.default is True else f"{parameter.default}"
    written = ", ".join(f"`{n}{value if n == names[0] else ''}`" for n in names)
    return written.replace("|", "\\|"), default, about.help or ""


def _cell(words: str) -> str:
    return " ".join(words.split()).replace("|", "\\|")


def optimizers() -> str:
    """The page of optimizers."""
    kinds = [k for n in sorted(optim.__all__, key=str.lower) if inspect.isclass(k := getattr(optim, n))]
    kinds = [k for k in kinds if issubclass(k, optim.Optimizer) and k is not optim.Optimizer]
    methods = [getattr(optim.Optimizer, n) for n in _METHODS]
    described: dict[str, Any] = {k.__name__: k for k in (*kinds, optim.Optimizer)}
    described |= {f"Optimizer.{m.__name__}": m for m in methods}
    described |= {f"gradwise.{f.__name__}": f for f in (gradwise.equivalent, gradwise.recommend)}
    return _OPTIM + "\n".join(
        f"## `{name}`\n\n```text\n{_signature(name, what)}\n```\n\n{_docstring(what, optim)}\n"
        for name, what in described.items()
    )


def schedules_page() -> str:
    """The page of schedules."""
    return _SCHEDULES + "\n".join(_public(schedules, _SCHEDULE_NAMES))


def regularization_page() -> str:
    """The page of regularization."""
    return _REGULARIZATION + "\n".join(_public(regularization, _REGULARIZATION_NAMES))


def curvature_page() -> str:
    """The page of curvature."""
    return _CURVATURE + "\n".join(_public(curvature, _CURVATURE_NAMES))


def _public(module: ModuleType, names: str) -> Iterator[str]:
    """A section for each public name of a module, out of its docstring."""
    if sorted(names.split()) != sorted(module.__all__):
        raise SystemExit(f"say in make_reference.py where these come: {set(names.split()) ^ set(module.__all__)}")
    for name in names.split():
        what = getattr(module, name)
        lines = [f"## `{name}`", ""]
        if not isinstance(what, type):
            lines += ["```text", _signature(name, what), "```", ""]
        lines += [_docstring(what, module), ""]
        if isinstance(what, type):
            methods = [m for n, m in vars(what).items() if inspect.isfunction(m) and not n.startswith("_")]
            lines += [f"- `.{_signature(m.__name__, m)}` {_first_line(m)}" for m in methods] + [""] * bool(methods)
        yield "\n".join(lines)


def _signature(name: str, function: Callable[..., Any]) -> str:
    parameters = [
        p.replace(annotation=inspect.Parameter.empty)
        for p in inspect.signature(function).parameters.values()
        if p.name != "self"
    ]
    return name + re.sub(r" -> .*", "", str(inspect.Signature(parameters)))


def _first_line(function: Callable[..., Any]) -> str:
    return (inspect.getdoc(function) or "").partition("\n\n")[0].replace("\n", " ")


def _docstring(what: Any, module: ModuleType) -> str:
    """A docstring in Markdown: arguments as a table, examples as code that runs by itself."""
    first, *sections = re.split(
        r"^(Args|Attributes|Returns|Raises|Example|Source):\s", inspect.getdoc(what) or "", flags=re.MULTILINE
    )
    parts = [first.strip()]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        text = inspect.cleandoc(body)
        if title in ("Args", "Attributes"):
            rows = re.findall(r"^(\w[\w, ]*): (.*(?:\n +.*)*)", text, re.MULTILINE)
            parts.append("| | |\n|---|---|\n" + "\n".join(f"| `{n}` | {_cell(said)} |" for n, said in rows))
        elif title == "Example":
            parts.append(f"```python\n{_imports(text, module)}{text}\n```")
        else:
            parts.append(f"**{title}:** {text.partition('>>>')[0].strip()}")
    return "\n\n".join(parts)


def _imports(example: str, module: ModuleType) -> str:
    """The imports that an example needs and doesn't make itself."""
    made = set(re.findall(r"import (.*)", example))
    used = [n for n in module.__all__ if re.search(rf"\b{n}\(|\b{n}\.", example) and not any(n in m for m in made)]
    lines = [f"from {module.__name__} import {', '.join(sorted(used))}"] if used else []
    for word, line in (("np", "import numpy as np"), ("nn", "from torch import nn"), ("torch", "import torch")):
        if re.search(rf"(?<!\.)\b{word}\.", example) and line not in example:
            lines.insert(0, line)
    return "".join(f">>> {line}\n" for line in lines)


PAGES: dict[str, Callable[[], str]] = {
    "cli.md": cli,
    "optimizers.md": optimizers,
    "signals.md": signals,
    "schedules.md": schedules_page,
    "regularization.md": regularization_page,
    "curvature.md": curvature_page,
}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), "utf-8")
