"""A remedy as a unified diff of the user's file, where it is a literal or an argument on a line that is known.

The file is read when the report is made. Where it isn't the one that ran (the line reads otherwise now), where the
call isn't found, or where the change is more than an argument or a line beside the step, there is no diff: advice in
words is better than an edit that is not what was tried.
"""

from __future__ import annotations

import ast
import difflib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from gradwise.diagnosis.advice import settings
from gradwise.diagnosis.findings import Diagnosis, Finding, Remedy
from gradwise.interventions import Intervention
from gradwise.recording.recording import OptimizerInfo, Place, Recording

_LARGEST = 1 << 21  # bytes of a source file
_PARAMETERS = '[p for g in {0}.param_groups for p in g["params"]]'


def with_diffs(diagnosis: Diagnosis, recording: Recording) -> Diagnosis:
    """The same diagnosis with a diff in each remedy that is one."""
    optimizers = {o.index: o for o in recording.optimizers}

    def known(finding: Finding) -> Finding:
        optimizer = optimizers.get(finding.source)
        return replace(finding, remedies=tuple(_with_diff(r, finding, optimizer, recording) for r in finding.remedies))

    return replace(
        diagnosis,
        findings=tuple(map(known, diagnosis.findings)),
        suspicions=tuple(map(known, diagnosis.suspicions)),
    )


def _with_diff(remedy: Remedy, finding: Finding, optimizer: OptimizerInfo | None, recording: Recording) -> Remedy:
    if optimizer is None:
        return remedy
    where = finding.where
    place = Place(where.file, where.line) if where.file is not None and where.line is not None else None
    try:
        return replace(remedy, diff=diff_of(remedy.intervention, optimizer, place, recording.run.cwd))
    except (OSError, ValueError, SyntaxError, RecursionError):  # a file that is gone, no Python, no text
        return remedy


def diff_of(intervention: Intervention, optimizer: OptimizerInfo, place: Place | None = None, folder: str = "") -> str:
    """The change as a unified diff; "" where it isn't one of a line.

    Args:
        intervention: the change.
        optimizer: the one to change.
        place: the line the finding is about.
        folder: what the places' files are relative to.
    """
    return _diff(list(_edits(intervention, optimizer, place)), folder)


def diff_of_settings(
    intervention: Intervention,
    optimizer: OptimizerInfo | None,
    defaults: Mapping[str, object],
    script: str,
    folder: str = "",
) -> str:
    """A change, and other defaults of the script's own options, as a unified diff; "" where not all of it is one.

    Args:
        intervention: what to change; may be empty.
        optimizer: the one to change.
        defaults: by option ("--hidden"), the value that `add_argument` is to give it.
        script: the file that has the options.
        folder: what files are relative to.
    """
    edits: list[_Edit | None] = [] if not intervention else [None]
    if intervention and optimizer is not None:
        edits = list(_edits(intervention, optimizer, None, options=True))
    edits += [_Edit(Place(script, 1), _defaulting(option, value)) for option, value in defaults.items()]
    try:
        return _diff(edits, folder)
    except (OSError, ValueError, SyntaxError, RecursionError):
        return ""


def _diff(edits: Sequence[_Edit | None], folder: str) -> str:
    """All edits or none, of one file."""
    if not edits or None in edits:
        return ""
    files = {
        os.path.relpath(os.path.join(folder, edit.place.file), folder or ".") for edit in edits if edit is not None
    }
    if len(files) != 1:
        return ""
    (file,) = files
    before = _read(os.path.join(folder, file))
    source = _Source(before)
    for edit in edits:
        if edit is None or not source.fits(edit.place) or not edit.make(source, edit.place.line):
            return ""
    after = source.edited()
    ast.parse(after)
    lines = difflib.unified_diff(_lines(before), _lines(after), file, file, n=1)
    return "".join(line if line.endswith("\n") else line + "\n" for line in lines)


def _read(path: str) -> str:
    if os.path.getsize(path) > _LARGEST:
        raise ValueError(path)
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def _lines(text: str) -> list[str]:
    """Lines as Python counts them (`splitlines` knows more ends of lines), their ends as they are."""
    return io.StringIO(text, newline="").readlines()


@dataclass(frozen=True, slots=True)
class _Edit:
    """A change at a place; `make` says whether it could be made there."""

    place: Place
    make: Callable[[_Source, int], bool]


def _edits(
    intervention: Intervention, optimizer: OptimizerInfo, place: Place | None, options: bool = False
) -> Iterator[_Edit | None]:
    """What to change, None for what is no change of a line; with `options` at an option's default where one is used."""
    made, stepped = optimizer.made, optimizer.stepped
    data = intervention.to_json()
    data.pop("optimizer", None)
    fixes = data.pop("fixes", [])
    for key in data:
        if key == "lr_scale" and made is not None and len(optimizer.groups) == 1:
            make = _scaling(optimizer, data[key])
            rate = optimizer.groups[0].get("initial_lr", optimizer.groups[0].get("lr"))
            if options and isinstance(rate, int | float):
                make = _either(_through_option(optimizer.kind, "lr", rate, float(f"{rate * data[key]:.3g}")), make)
            yield _Edit(made, make)
        elif key in ("momentum", "eps", "decay_scale") and made is not None and len(optimizer.groups) == 1:
            for name, before, after in settings(Intervention.from_json({key: data[key]}), optimizer):
                make = _setting(optimizer.kind, name, _literal(after))
                if options and isinstance(after, float):
                    make = _either(_through_option(optimizer.kind, name, before, float(f"{after:.3g}")), make)
                yield _Edit(made, make)
        elif key == "clip_norm" and stepped is not None:
            clip = f"torch.nn.utils.clip_grad_norm_({_PARAMETERS}, {_literal(data[key])})"
            yield _Edit(stepped, _beside_step(clip, before=True))
        else:
            yield None
    for fix in fixes:
        if fix == "zero-grad" and stepped is not None:
            yield _Edit(stepped, _beside_step("{0}.zero_grad()", before=False))
        elif fix == "shuffle" and place is not None:
            yield _Edit(place, _setting("DataLoader", "shuffle", "True"))
        else:
            yield None


def _scaling(optimizer: OptimizerInfo, scale: float) -> Callable[[_Source, int], bool]:
    """The learning rate times a factor: a literal as its new value, anything else multiplied where it stands."""

    def make(source: _Source, line: int) -> bool:
        call = source.call(optimizer.kind, line)
        value = None if call is None else _argument(call, "lr", 1)
        rate = optimizer.groups[0].get("lr")
        if call is None or not isinstance(rate, int | float):
            return False
        if value is None:
            return source.add(call, f"lr={_literal(rate * scale)}")
        if isinstance(value, ast.Constant):
            return value.value == rate and source.put(value, _literal(rate * scale))
        plain = isinstance(value, ast.Name | ast.Attribute | ast.Subscript | ast.Call)
        text = source.text(value)
        return source.put(value, f"{text if plain else f'({text})'} * {scale:.3g}")

    return make


def _setting(kind: str, name: str, value: str) -> Callable[[_Source, int], bool]:
    """An argument by keyword: in place of a literal, or added where there is none."""

    def make(source: _Source, line: int) -> bool:
        call = source.call(kind, line)
        if call is None:
            return False
        before = _argument(call, name)
        if before is None:
            return source.add(call, f"{name}={value}")
        try:
            ast.literal_eval(before)
        except ValueError:
            return False  # computed: what it is elsewhere isn't known here
        return source.put(before, value)

    return make


def _either(*makes: Callable[[_Source, int], bool]) -> Callable[[_Source, int], bool]:
    """The first of several ways that can be gone."""
    return lambda source, line: any(make(source, line) for make in makes)


def _through_option(kind: str, name: str, before: object, after: float) -> Callable[[_Source, int], bool]:
    """An argument that is an option's value (`lr=args.lr`): the option's default, if that is what it was."""

    def make(source: _Source, line: int) -> bool:
        call = source.call(kind, line)
        value = None if call is None else _argument(call, name, 1 if name == "lr" else None)
        if not isinstance(value, ast.Attribute):
            return False
        names = dict.fromkeys(("--" + value.attr, "--" + value.attr.replace("_", "-")))
        return any(_default(source, option, after, (before,)) for option in names)

    return make


def _defaulting(option: str, value: object) -> Callable[[_Source, int], bool]:
    """Another default of an option."""
    return lambda source, line: _default(source, option, value)


def _default(source: _Source, option: str, value: object, known: Sequence[object] = ()) -> bool:
    """Another default where a single `add_argument` has the option and a literal as its default, one of `known`."""
    calls = [
        node
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "add_argument"
        and any(isinstance(a, ast.Constant) and a.value == option for a in node.args)
    ]
    if len(calls) != 1 or any(k.arg in (None, "action", "nargs") for k in calls[0].keywords):
        return False
    before = _argument(calls[0], "default")
    if before is None:
        return not known and source.add(calls[0], f"default={value!r}")
    try:
        held = ast.literal_eval(before)
    except ValueError:
        return False
    if known and held not in known:
        return False
    return source.put(before, repr(str(value) if isinstance(held, str) else value))


def _beside_step(text: str, before: bool) -> Callable[[_Source, int], bool]:
    """A line of its own before or after `optimizer.step()`, where that is one."""

    def make(source: _Source, line: int) -> bool:
        for node in ast.walk(source.tree):
            if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Call) or node.lineno != line:
                continue
            called = node.value.func
            if isinstance(called, ast.Attribute) and called.attr == "step" and not node.value.args:
                return source.insert(node, text.replace("{0}", source.text(called.value)), before)
        return False

    return make


class _Source:
    """A source file and the edits to make in it."""

    def __init__(self, text: str) -> None:
        self.tree = ast.parse(text)
        self._lines = [line.encode() for line in _lines(text)]
        self._edits: list[tuple[int, int, int, int, str]] = []  # from line and column to line and column, the new text

    def fits(self, place: Place) -> bool:
        """Whether the line is there and reads as it did."""
        if not 1 <= place.line <= len(self._lines):
            return False
        return not place.text or self._lines[place.line - 1].decode().strip().startswith(place.text)

    def call(self, name: str, line: int) -> ast.Call | None:
        """The only call of that name on a line; None where there are several, or arguments by `**`."""
        found = [
            node
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Call)
            and node.lineno <= line <= (node.end_lineno or node.lineno)
            and (node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")) == name
        ]
        if len(found) != 1 or any(k.arg is None for k in found[0].keywords):
            return None
        return None if any(isinstance(a, ast.Starred) for a in found[0].args) else found[0]

    def text(self, node: ast.expr) -> str:
        """What a node reads."""
        return ast.unparse(node)

    def put(self, node: ast.expr, text: str) -> bool:
        """Another text in place of an expression."""
        self._edits.append((*_begin(node), *_end(node), text))
        return True

    def add(self, call: ast.Call, text: str) -> bool:
        """One more argument at the end of a call that has some."""
        given = [*call.args, *(k.value for k in call.keywords)]
        if not given:
            return False
        end = max(map(_end, given))
        self._edits.append((*end, *end, f", {text}"))
        return True

    def insert(self, statement: ast.stmt, text: str, before: bool) -> bool:
        """A line of its own beside a statement that has its lines to itself."""
        first, last = self._lines[statement.lineno - 1], self._lines[(statement.end_lineno or statement.lineno) - 1]
        indent, rest = first[: statement.col_offset], last[statement.end_col_offset :].split(b"#")[0]
        if indent.strip() or rest.strip() or not last.endswith(b"\n"):
            return False
        newline = b"\r\n" if last.endswith(b"\r\n") else b"\n"
        at = statement.lineno - 1 if before else (statement.end_lineno or statement.lineno)
        self._edits.append((at + 1, 0, at + 1, 0, (indent + text.encode() + newline).decode()))
        return True

    def edited(self) -> str:
        """The file with all edits made."""
        starts = [0]
        for line in self._lines:
            starts.append(starts[-1] + len(line))
        whole = b"".join(self._lines)
        for begun, column, ended, end, text in sorted(self._edits, reverse=True):
            whole = whole[: starts[begun - 1] + column] + text.encode() + whole[starts[ended - 1] + end :]
        return whole.decode()


def _argument(call: ast.Call, name: str, position: int | None = None) -> ast.expr | None:
    """A call's argument by keyword, else by position."""
    named = next((k.value for k in call.keywords if k.arg == name), None)
    if named is None and position is not None and len(call.args) > position:
        return call.args[position]
    return named


def _begin(node: ast.expr) -> tuple[int, int]:
    return node.lineno, node.col_offset


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or 0


def _literal(value: object) -> str:
    """A number as one would write it, to three figures."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_exact, value))})"
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return f"{text}.0" if isinstance(value, float) and text.lstrip("-").isdigit() else text


def _exact(value: object) -> str:
    return repr(value)
