"""The CPU kernel of a rule: one call for all tensors of a group, one pass over memory, compiled by Numba."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from struct import Struct
from textwrap import indent
from typing import Any

import numpy as np
import torch

from gradwise.optim.kernels import generated, threads
from gradwise.optim.kernels.formula import Formula, helper
from gradwise.optim.kernels.reference import Around
from gradwise.optim.rules import scalars

# Elements that are worked on at a time: their states fit the second-level cache, and threads share out chunks.
CHUNK = 16384
# What stands before a rule's own coefficients.
AROUND = Around._fields
# What each chunk yields: sums of g², θ², Δ², g·m. (Where Σg² is finite all of g is: no need to count in the loop.)
SUMS = 4
DTYPES = {torch.float32: "float32", torch.float64: "float64"}
_SIZE = {torch.float32: 4, torch.float64: 8}


@dataclass(frozen=True)
class Kernel:
    """A compiled rule: the addresses of its step and (for layer-wise rules) of a step that only measures itself."""

    step: int
    measure: int


class Job:
    """Tensors that are stepped together; built once, its addresses of gradients renewed at each step.

    `table` has a row for each tensor: addresses of parameter, gradient, states, average, and of its coefficients.
    """

    def __init__(self, sizes: Sequence[int], columns: int, count: int, dtype: torch.dtype) -> None:
        n = len(sizes)
        self.dtype, self.bytes = dtype, sum(sizes) * _SIZE[dtype] * columns
        self.table = np.zeros((n, columns + 2), np.int64)
        chunks = [(i, at, min(CHUNK, size - at)) for i, size in enumerate(sizes) for at in range(0, size, CHUNK)]
        self.chunks = np.array(chunks, np.int64).reshape(-1, 3)
        self._filled, self._starts = np.unique(self.chunks[:, 0], return_index=True)
        self.sums = np.zeros((len(chunks), SUMS))
        self.coefficients = np.zeros((n, len(AROUND) + count))
        self.table[:, -1] = self.coefficients.ctypes.data
        self._parts = (self.table, self.chunks, self.sums)
        addresses = [a.ctypes.data for a in self._parts]
        self.head = np.array([0, len(chunks), columns + 2, *addresses], np.int64)
        self.address = self.head.ctypes.data
        self._rows = 1
        self._row = self.coefficients[0].data if n else memoryview(bytearray())
        self._pack = Struct(f"{self.coefficients.shape[1]}d").pack_into

    def set(self, rows: Sequence[Sequence[float]]) -> None:
        """Coefficients: one row for all tensors, or one for each."""
        if len(rows) != self._rows:
            stride = self.coefficients.strides[0] if len(rows) > 1 else 0
            self.table[:, -1] = self.coefficients.ctypes.data + stride * np.arange(len(self.table))
            self._rows = len(rows)
        if len(rows) == 1:
            self._pack(self._row, 0, *rows[0])
        else:
            self.coefficients[:] = rows

    def run(self, kernel: int) -> None:
        """One pass over all tensors."""
        self.head[0] = 0
        threads.run(kernel, self.address, self.bytes)

    def totals(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """What the last pass summed, a row for each tensor."""
        total = np.zeros((len(self.table), SUMS))
        if len(self.sums):
            total[self._filled] = np.add.reduceat(self.sums, self._starts)
        return total


def compiled(name: str, formula: Formula, dtype: torch.dtype, layerwise: bool = False) -> Kernel:
    """The kernel of a rule, from the disk cache if it was compiled before."""
    key = name, formula.text, dtype, layerwise
    if key not in _known:
        real = DTYPES[dtype]
        step = generated.addresses(name, _source(name, formula, real, True), ("run",))["run"]
        measure = 0
        if layerwise:
            measure = generated.addresses(f"{name}-measure", _source(name, formula, real, False), ("run",))["run"]
        _known[key] = Kernel(step, measure)
    return _known[key]


# Writing a kernel's text takes ten milliseconds: once, not for every group of every optimizer.
_known: dict[tuple[str, str, torch.dtype, bool], Kernel] = {}


@cache
def norms(dtype: torch.dtype) -> int:
    """Address of the kernel that only sums squares of gradients."""
    loop = _loop(["g"], ["sg = sg + g * g"], False)
    text = _HEAD.format(title="norms", real=DTYPES[dtype]) + _accessors(2) + _kernel(1, [], loop, "", True)
    return generated.addresses("norms", text, ("run",))["run"]


_HEAD = '''"""{title}, {real}: generated from a rule's source."""

from math import exp, log, sqrt
from numba import cfunc, types
from gradwise.optim.kernels.memory import accessors, address_of, double, next_of, put_double, word

T = types.{real}
SIZE = T.bitwidth // 8
INF = T(float("inf"))
'''


def _source(name: str, formula: Formula, real: str, stored: bool) -> str:
    elements = formula.elements
    own = [f"c{i}" for i in range(formula.count)]
    columns = len(elements)
    ema = f"""
        if word(row, {columns}) != 0:
            average = word(row, {columns}) + at
            for i in range(n):
                e = load{columns}(average, i)
                store{columns}(average, i, e + ema * (load0(address0, i) - e))
"""
    head = _HEAD.format(title=name, real=real) + _accessors(columns + 1)
    return head + _kernel(columns, own, _loops(formula, stored), ema if stored else "")


def _loops(formula: Formula, stored: bool) -> str:
    """The loop over a chunk: a short one, and one that also clips and thresholds, which would cost all others time."""
    short, full = (_loop(formula.elements, _statements(formula, bounds), stored) for bounds in (False, True))
    return f"""        if clip_value < INF or threshold > T(0):
{indent(full, "    ")}
        else:
{indent(short, "    ")}"""


def _statements(formula: Formula, bounds: bool) -> list[str]:
    """What is done with an element: around the rule, and the rule."""
    p, g, *states = formula.elements
    lines = [f"{g} = {g} * grad_scale", f"before = {p}", f"sg = sg + {g} * {g}", f"sp = sp + {p} * {p}"]
    if states:
        lines.append(f"sm = sm + {g} * {states[0]}")
    if bounds:
        lines.append(f"{g} = {helper(scalars.clamp, {'x': g, 'bound': 'clip_value'})}")
    lines += [f"{g} = {helper(scalars.penalized, {'p': p, 'g': g, 'l2': 'l2'})}", f"{p} = {p} * decay"]
    lines += map(ast.unparse, formula.body)
    lines += [f"new_{n} = {ast.unparse(r)}" for n, r in zip((p, *states), formula.result, strict=True)]
    if bounds:
        lines.append(f"new_{p} = {helper(scalars.soft_threshold, {'x': f'new_{p}', 'threshold': 'threshold'})}")
    return [*lines, f"delta = new_{p} - before", "sd = sd + delta * delta"]


def _accessors(count: int) -> str:
    return "".join(f"load{k}, store{k} = accessors(T, {k})\n" for k in range(count))


def _loop(elements: Sequence[str], lines: Sequence[str], stored: bool) -> str:
    statements = [f"{name} = load{k}(address{k}, i)" for k, name in enumerate(elements)]
    statements += [_typed(line) for line in lines]
    if stored:
        statements += [f"store{k}(address{k}, i, new_{name})" for k, name in enumerate(elements) if k != 1]
    return "        for i in range(n):\n" + indent("\n".join(statements), " " * 12)


def _kernel(columns: int, own: Sequence[str], loop: str, ema: str, bare: bool = False) -> str:
    around = () if bare else AROUND
    read = "".join(f"        {n} = T(double(row_of, {i}))\n" for i, n in enumerate((*around, *own)))
    addresses = "".join(f"        address{k} = word(row, {k}) + at\n" for k in range(columns))
    return f"""

@cfunc(types.void(types.voidptr), error_model="numpy", fastmath={{"contract", "reassoc", "nsz"}})
def run(job):
    head = address_of(job)
    count, columns, table, chunks, sums = word(head, 1), word(head, 2), word(head, 3), word(head, 4), word(head, 5)
    while True:
        chunk = next_of(head)
        if chunk >= count:
            break
        row = table + word(chunks, 3 * chunk) * columns * 8
        at, n = word(chunks, 3 * chunk + 1) * SIZE, word(chunks, 3 * chunk + 2)
        row_of = word(row, columns - 1)
{read}{addresses}        sg, sp, sd, sm = T(0), T(0), T(0), T(0)
{loop}
        put_double(sums, {SUMS} * chunk, sg)
        put_double(sums, {SUMS} * chunk + 1, sp)
        put_double(sums, {SUMS} * chunk + 2, sd)
        put_double(sums, {SUMS} * chunk + 3, sm)
{ema}"""


def _typed(line: str) -> str:
    return ast.unparse(ast.fix_missing_locations(_Typed().visit(ast.parse(line))))


class _Typed(ast.NodeTransformer):
    """Numbers get the kernel's type (Numba would compute float32 with 2.0 in double); primitives become expressions."""

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        return ast.Call(ast.Name("T", ast.Load()), [node], []) if isinstance(node.value, int | float) else node

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        if isinstance(node.op, ast.Pow) and isinstance(node.right, ast.Constant) and node.right.value == 2:
            left = self.visit(node.left)
            return ast.BinOp(left, ast.Mult(), left)
        return self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        if isinstance(node.func, ast.Name) and node.func.id == "T":
            return node  # typed already
        name = ast.unparse(node.func)
        arguments = [ast.unparse(self.visit(a)) for a in node.args]
        text = _EXPRESSIONS.get(name, name + "({})" if len(arguments) == 1 else "").format(*arguments)
        return ast.parse(text, mode="eval").body


_EXPRESSIONS = {
    "where": "(({1}) if ({0}) else ({2}))",
    "maximum": "(({0}) if (({0}) > ({1})) | (({0}) != ({0})) else ({1}))",
    "minimum": "(({0}) if (({0}) < ({1})) | (({0}) != ({0})) else ({1}))",
    "sign": "(T(1) if ({0}) > T(0) else (T(-1) if ({0}) < T(0) else ({0})))",
    "absolute": "abs({0})",
}
