"""The GPU kernel of a rule: one launch for all tensors of a batch, one pass over memory, compiled by Triton.

Where the tensors are stands in a table on the device; what changes with each step (addresses of gradients,
coefficients) goes there in one copy, which the host does not wait for. Triton's interpreter runs the same kernels on
the CPU (`TRITON_INTERPRET=1`), for tests.
"""

from __future__ import annotations

import ast
import hashlib
import linecache
import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gradwise.optim.kernels.formula import Formula, helper
from gradwise.optim.kernels.reference import Around
from gradwise.optim.rules import scalars

DTYPES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16", torch.float16: "float16"}
# Elements a program works on at a time, and in all.
BLOCK, CHUNK = 1024, 4096
# Loads of whole vectors need addresses and numbers of elements that are multiples of this.
VECTOR = 16
AROUND = Around._fields
# What each chunk yields: sums of g², θ², Δ², g·m, and how many gradients are not finite.
SUMS = 5
# What a launch is asked to do, beside stepping: sum; only sum (for layer-wise rules); round bfloat16 by chance.
WANT, DRY, BY_CHANCE = 1, 2, 4


def interpreted() -> bool:
    """Whether Triton runs kernels on the CPU."""
    return os.environ.get("TRITON_INTERPRET") == "1"


def obstacle(p: Tensor) -> str | None:
    """Why the kernel can't step this parameter; None if it can."""
    if p.device.type not in ("cuda", "xpu") and not (interpreted() and p.device.type == "cpu"):
        return f"the parameter is on {p.device}, not on a GPU"
    if p.dtype.to_real() not in DTYPES:
        return f"no kernel for {p.dtype}"
    return _unequipped(p.device)


@cache
def _unequipped(device: torch.device) -> str | None:
    if find_spec("triton") is None:
        return "triton is not installed; it comes with torch's CUDA builds, else `pip install triton`"
    if device.type == "cuda" and torch.version.hip is None and torch.cuda.get_device_capability(device) < (7, 0):
        return f"{torch.cuda.get_device_name(device)} is older than what Triton compiles for (compute capability 7.0)"
    return None


class Job:
    """Tensors that are stepped together, as the kernels see them.

    Args:
        columns: addresses of each tensor's parameter, states, average, and master weights (0 where there is none).
        sizes: numbers of elements.
        count: coefficients of the rule.
        device: where the tensors are.
    """

    def __init__(
        self, columns: Sequence[Sequence[int]], sizes: Sequence[int], count: int, device: torch.device
    ) -> None:
        n = len(sizes)
        self.device, self.count, self.width = device, n, len(AROUND) + count
        table = np.array(columns, np.int64).T.reshape(n, len(columns))
        self.table = sent(table, device)
        whole, rest = _chunks(sizes, (table % VECTOR == 0).all(1))
        chunks = np.array([*whole, *rest], np.int64).reshape(-1, 3)
        self.whole, self.rest = len(whole), len(rest)
        self.chunks = sent(chunks, device)
        self.order = sent(np.argsort(chunks[:, 0], kind="stable"), device)
        self.lengths = sent(np.bincount(chunks[:, 0], minlength=n), device)
        self.sums = torch.zeros(len(chunks), SUMS, dtype=torch.float64, device=device)
        self._norms = torch.zeros(len(chunks), 2, dtype=torch.float64, device=device)
        self._head = n + n % 2  # so that coefficients begin at a multiple of 16 bytes, too
        self.words = torch.zeros(self._head + n * self.width, dtype=torch.int64, device=device)
        self.gradients = self.words[: self._head]
        self.rows = self.words[self._head :].view(torch.float64).view(n, self.width)
        self.stride, self._aligned = 0, False
        self._spare: Tensor | None = None
        self._captured: list[Tensor] = []

    def send(self, gradients: Sequence[int], rows: Sequence[Sequence[Any]], spread: bool) -> None:
        """Addresses of gradients, and coefficients: one row for all tensors, or one for each.

        Coefficients may be numbers, or tensors on the device: of one value, or in a single row one for each tensor.
        With `spread` there will be a row for each tensor, whatever is given now.
        """
        spread = spread or len(rows) > 1 or any(isinstance(c, Tensor) for c in rows[0])
        self.stride = self.width if spread else 0
        self._aligned = all(a % VECTOR == 0 for a in gradients)
        if self.device.type == "cuda" and torch.cuda.is_current_stream_capturing():
            # A replay copies from the same host memory again, so nothing else may ever use it; and none can be had
            # while a graph is captured.
            buffer = self._spare if self._spare is not None else self._buffer()
            self._captured.append(buffer)
            self._spare = None
        else:
            buffer = self._buffer()
            self._spare = self._buffer() if self._spare is None else self._spare
        host = buffer.numpy()
        host[: self.count] = gradients
        numbers = [[0.0 if isinstance(c, Tensor) else c for c in row] for row in rows]
        last = self.count if spread else 1
        host[self._head :].view(np.float64).reshape(self.count, self.width)[:last] = numbers
        end = self._head + last * self.width
        self.words[:end].copy_(buffer[:end], non_blocking=True)
        self.put(rows)

    def put(self, rows: Sequence[Sequence[Any]]) -> None:
        """Those coefficients that are tensors."""
        for i, row in enumerate(rows):
            to = self.rows if len(rows) == 1 else self.rows[i : i + 1]
            for j, c in enumerate(row):
                if isinstance(c, Tensor):
                    to[:, j].copy_(c)

    def step(self, kernel: Any, control: Tensor, seed: Tensor, flags: int) -> None:
        """One pass over all tensors; `control` is (unscaling, clipping by norm, whether to step at all)."""
        for first, count, aligned in self._launches():
            kernel[(count,)](
                self.table, self.gradients, self.rows, self.chunks, self.sums, control, seed, first, self.stride, flags,
                ALIGNED=aligned, enable_fp_fusion=True,
            )  # fmt: skip

    def norms(self, dtype: torch.dtype) -> Tensor:
        """Σg² and the number of non-finite gradients, over all tensors."""
        from triton import language

        from gradwise.optim.kernels import triton_functions as functions

        kind, real = getattr(language, DTYPES[dtype]), getattr(language, computed_in(dtype))
        for first, count, aligned in self._launches():
            functions.norms[(count,)](
                self.gradients,
                self.chunks,
                self._norms,
                first,
                KIND=kind,
                REAL=real,
                BLOCK=BLOCK,
                ALIGNED=aligned,
                enable_fp_fusion=True,
            )
        return self._norms.sum(0)

    def totals(self) -> Tensor:
        """What the last pass summed, a row for each tensor."""
        if not len(self.order):
            return self.sums.new_zeros(self.count, SUMS)
        ordered = self.sums[self.order]
        return torch.segment_reduce(ordered, "sum", lengths=self.lengths, axis=0, unsafe=True, initial=0)

    def _launches(self) -> list[tuple[int, int, bool]]:
        """First chunk, how many, and whether they can be loaded in vectors."""
        parts = [(0, self.whole, True), (self.whole, self.rest, False)]
        return [p for p in (parts if self._aligned else [(0, self.whole + self.rest, False)]) if p[1]]

    def _buffer(self) -> Tensor:
        # torch hands pinned memory out anew only when the copies from it are done.
        return torch.empty(len(self.words), dtype=torch.int64, pin_memory=self.device.type != "cpu")


def sent(values: np.ndarray[Any, Any], device: torch.device) -> Tensor:
    """An array on the device, without waiting for it to be there."""
    host = torch.from_numpy(np.ascontiguousarray(values))
    return host if device.type == "cpu" else host.pin_memory().to(device, non_blocking=True)


def guard(device: torch.device) -> AbstractContextManager[Any]:
    """Within this context the device is the one that kernels are launched on."""
    return nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)


def computed_in(dtype: torch.dtype) -> str:
    """The type that arithmetic on this one is done in."""
    return "float64" if dtype == torch.float64 else "float32"


def compiled(name: str, formula: Formula, dtypes: Sequence[torch.dtype], average: torch.dtype, master: bool) -> Any:
    """The kernel of a rule for number types of parameter, gradient and states; Triton compiles it when first run."""
    return _made(name, _source(name, formula, [DTYPES[d] for d in dtypes], DTYPES[average], master))


@cache
def _made(name: str, text: str) -> Any:
    """The kernel of this source; Triton keeps what it compiles on disk, by the source."""
    file = f"<{name} {hashlib.sha256(text.encode()).hexdigest()[:16]}>"
    linecache.cache[file] = (len(text), None, text.splitlines(keepends=True), file)  # where Triton looks for it
    namespace: dict[str, Any] = {"__name__": f"gradwise_{name}"}
    exec(compile(text, file, "exec"), namespace)  # generated from the rule's source
    return namespace["step"]


def _chunks(sizes: Sequence[int], aligned: Sequence[bool]) -> tuple[list[Any], list[Any]]:
    """(tensor, first element, how many): those that whole vectors can be loaded from, and the rest."""
    whole: list[Any] = []
    rest: list[Any] = []
    for k, (size, good) in enumerate(zip(sizes, aligned, strict=True)):
        # Of a small tensor only all or nothing: one program more costs more than single loads do.
        end = size // VECTOR * VECTOR if good and (size > CHUNK or size % VECTOR == 0) else 0
        for found, begin, stop in ((whole, 0, end), (rest, end, size)):
            found += [(k, at, min(CHUNK, stop - at)) for at in range(begin, stop, CHUNK)]
    return whole, rest


def _source(name: str, formula: Formula, dtypes: Sequence[str], average: str, master: bool) -> str:
    real = "float64" if dtypes[0] == "float64" else "float32"
    # A rule may use any names of its own: here they all end in an underscore.
    local = {
        n.id for s in formula.body for n in ast.walk(s) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    names = {n: f"{n}_" for n in (*formula.elements, *sorted(local))}
    p, g, *states = (names[e] for e in formula.elements)
    width = len(states) + 3
    kinds = dict(zip((p, g, *states), dtypes, strict=True))
    place = {p: f"row + {width - 1 if master else 0}", g: "gradients + tensor"}
    place |= {s: f"row + {1 + k}" for k, s in enumerate(states)}
    if master:
        kinds[p] = "float32"

    def pointer(cell: str, kind: str) -> str:
        return f"address({cell}, at, tl.{kind}, ALIGNED)"

    def store(to: str, value: str, kind: str, mask: str = "keep") -> str:
        return f"tl.store(a_{to} + i, ({value}).to(tl.{kind}), mask={mask})"

    def ported(line: str | ast.AST, names: Mapping[str, str] = MappingProxyType({})) -> str:
        tree = ast.parse(line if isinstance(line, str) else ast.unparse(line))
        return ast.unparse(ast.fix_missing_locations(_Ported(real, names).visit(tree)))

    head = [f"a_{e} = {pointer(place[e], kind)}" for e, kind in kinds.items()]
    head += [
        f"a_average = {pointer(f'row + {width - 2}', average)}",
        f"averaged = (tl.load(row + {width - 2}) != 0).to(tl.int32)",
    ]
    head += [f"a_copy = {pointer('row', dtypes[0])}"] if master else []
    own = [*AROUND, *(f"c{k}" for k in range(formula.count))]
    head += [f"{c} = tl.load(given + {k}).to(tl.{real})" for k, c in enumerate(own)]
    body = [f"{e} = tl.load(a_{e} + i, mask=mask, other=0.0).to(tl.{real})" for e in kinds]
    body += [f"x = {g} * unscale", f"m = {states[0]}" if states else "m = x * 0", f"old = {p}"]
    body.append(f"g = {ported(helper(scalars.clamp, {'x': f'({g} * scale)', 'bound': 'clip_value'}))}")
    body.append(f"{g} = {ported(helper(scalars.penalized, {'p': p, 'g': 'g', 'l2': 'l2'}))}")
    body.append(f"{p} = {p} * decay")
    body += [ported(s, names) for s in formula.body]
    body += [f"new_{e} = {ported(r, names)}" for e, r in zip((p, *states), formula.result, strict=True)]
    body.append(f"new = {ported(helper(scalars.soft_threshold, {'x': f'new_{p}', 'threshold': 'threshold'}))}")
    body += [store(s, f"new_{s}", kinds[s]) for s in states]
    body += [store(p, "new", "float32")] if master else []
    body.append("stored = new")
    if dtypes[0] == "bfloat16":
        body.append(
            f"if (flags & {BY_CHANCE}) != 0:\n    stored = by_chance(new, tl.load(seed), program * {CHUNK} + i)"
        )
    body.append(store("copy" if master else p, "stored", dtypes[0]))
    body.append(f"e = tl.load(a_average + i, mask=i < n_average, other=0.0).to(tl.{real})")
    body.append(store("average", "e + ema * (new - e)", average, "i < n_average"))
    values = ("x * x", "old * old", "delta * delta", "x * m", "tl.where(tl.abs(x) < float('inf'), 0.0, 1.0)")
    totals = [f"s{k}" for k in range(SUMS)]
    adding = ["delta = tl.where(mask, new - old, 0.0)", *(f"{s} += {v}" for s, v in zip(totals, values, strict=True))]
    putting = [f"tl.store(sums + {SUMS} * program + {k}, tl.sum({s}).to(tl.float64))" for k, s in enumerate(totals)]
    return _KERNEL.format(
        title=name, real=real, width=width, block=BLOCK, dry=DRY, want=WANT, head=_lines(head, 1), body=_lines(body, 2),
        zeros=_lines([f"{s} = tl.zeros([{BLOCK}], tl.{real})" for s in totals], 1), adding=_lines(adding, 3),
        putting=_lines(putting, 2),
    )  # fmt: skip


def _lines(statements: Sequence[str], depth: int) -> str:
    return "\n".join("    " * depth + row for s in statements for row in s.splitlines())


_KERNEL = '''"""{title}, {real}: generated from a rule's source."""

import triton
import triton.language as tl
from gradwise.optim.kernels.triton_functions import (
    absolute, address, by_chance, chunk, exp, log, maximum, minimum, power, sign, where,
)


@triton.jit(do_not_specialize=["first", "stride", "flags"])
def step(
    table, gradients, coefficients, chunks, sums, control, seed, first, stride, flags, ALIGNED: tl.constexpr,
):
    program = first + tl.program_id(0)
    tensor, at, n = chunk(chunks, program, ALIGNED)
    row = table + tensor * {width}
    given = coefficients + tensor * stride
{head}
    unscale = grad_scale * tl.load(control).to(tl.{real})
    scale = unscale * tl.load(control + 1).to(tl.{real})
    dry = (flags & {dry}) != 0
    go = tl.load(control + 2).to(tl.int32)
    n = n * go
    n_out = tl.where(dry, 0, n)
    n_average = n_out * averaged
    threshold = tl.where(dry, 0.0, threshold)
{zeros}
    for start in range(0, n, {block}):
        i = start + tl.arange(0, {block})
        mask = i < n
        keep = i < n_out
{body}
        if (flags & {want}) != 0:
{adding}
    if (flags & {want}) * go != 0:
{putting}
'''


class _Ported(ast.NodeTransformer):
    """Divisions and roots rounded as IEEE has it (in float32 Triton's own are approximate); powers spelt out."""

    def __init__(self, real: str, names: Mapping[str, str]) -> None:
        self.single, self.names = real == "float32", names

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Name(self.names.get(node.id, node.id), node.ctx)

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        node.left, node.right = self.visit(node.left), self.visit(node.right)
        if isinstance(node.op, ast.Div) and self.single:
            return _call("tl.div_rn", node.left, node.right)
        if isinstance(node.op, ast.Pow):
            exponent = node.right.value if isinstance(node.right, ast.Constant) else None
            if isinstance(exponent, int) and 1 <= exponent <= 4:
                product: ast.expr = node.left
                for _ in range(exponent - 1):
                    product = ast.BinOp(product, ast.Mult(), node.left)
                return product
            return _call("power", node.left, node.right)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        arguments = [self.visit(a) for a in node.args]
        name = ast.unparse(node.func)
        if name == "sqrt":
            name = "tl.sqrt_rn" if self.single else "tl.sqrt"
        return _call(name, *arguments)


def _call(name: str, *arguments: ast.expr) -> ast.Call:
    return ast.Call(ast.parse(name, mode="eval").body, list(arguments), [])
