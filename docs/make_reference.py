"""Write the reference pages that the code itself can tell: `python docs/make_reference.py`.

`tests/test_docs.py` holds the pages to what this makes of the code.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.models import ArgumentInfo, OptionInfo

import gradwise
from gradwise import optim
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


def optimizers() -> str:
    """The page of optimizers."""
    kinds = [k for n in sorted(optim.__all__, key=str.lower) if inspect.isclass(k := getattr(optim, n))]
    kinds = [k for k in kinds if issubclass(k, optim.Optimizer) and k is not optim.Optimizer]
    sections = [_described(k.__name__, k) for k in kinds]
    sections.append(_described("Optimizer", optim.Optimizer))
    sections += [_described(f"Optimizer.{name}", getattr(optim.Optimizer, name)) for name in _METHODS]
    sections += [_described(f"gradwise.{f.__name__}", f) for f in (gradwise.equivalent, gradwise.recommend)]
    return _OPTIM + "\n".join(sections)


def _described(name: str, thing: Any) -> str:
    """A section from a docstring: what it is, its arguments with their defaults, its source."""
    text = inspect.getdoc(thing) or ""
    parts = re.split(r"^(Args|Returns|Raises|Source): ?", text, flags=re.MULTILINE)
    said = dict(zip(parts[1::2], parts[2::2], strict=True))
    lines = [f"## `{name}`", "", re.sub(r"^>>> .*", "", parts[0], flags=re.MULTILINE | re.DOTALL).strip(), ""]
    if "Args" in said:
        parameters = inspect.signature(thing).parameters
        lines += ["| argument | default | |", "|---|---|---|"]
        for names, meaning in re.findall(
            r"^    ([\w, ]+): (.*?)(?=^    \w|^\S|\Z)", said["Args"], re.MULTILINE | re.DOTALL
        ):
            meaning = re.split(r"\n\s*\n(?=\S)", meaning)[0]
            defaults = [parameters[n].default for n in names.split(", ") if n in parameters]
            shown = ", ".join(f"`{d!r}`" for d in dict.fromkeys(defaults) if d is not inspect.Parameter.empty)
            lines.append(f"| {', '.join(f'`{n}`' for n in names.split(', '))} | {shown} | {_cell(meaning)} |")
        lines.append("")
    if "Returns" in said:
        lines += [f"Returns: {_cell(re.split('>>>', said['Returns'])[0])}", ""]
    if "Source" in said:
        lines += [f"Source: {_cell(said['Source'])}", ""]
    return "\n".join(lines)


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
        elif isinstance(about, OptionInfo):
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


PAGES: dict[str, Callable[[], str]] = {"cli.md": cli, "optimizers.md": optimizers, "signals.md": signals}

if __name__ == "__main__":
    for page, make in PAGES.items():
        (HERE / page).write_text(make(), "utf-8")
