"""What generated GPU kernels call: a rule's primitives in Triton, and the pass that only measures gradients.

Imports Triton, so this is loaded by kernels alone.
"""

# mypy: disable-error-code="no-untyped-def, untyped-decorator"
# ruff: noqa: N803
import triton
import triton.language as tl


@triton.jit
def exp(x):
    """eˣ."""
    return tl.exp(x)


@triton.jit
def log(x):
    """Natural logarithm."""
    return tl.log(x)


@triton.jit
def absolute(x):
    """|x|."""
    return tl.abs(x)


@triton.jit
def where(condition, a, b):
    """`a` where the condition holds, else `b`."""
    return tl.where(condition, a, b)


@triton.jit
def sign(x):
    """−1, 0 or 1; NaN for NaN."""
    return tl.where(x > 0, 1.0, tl.where(x < 0, -1.0, x))


@triton.jit
def maximum(a, b):
    """The larger of both; NaN if either is."""
    return tl.where((a > b) | (a != a), a, b)


@triton.jit
def minimum(a, b):
    """The smaller of both; NaN if either is."""
    return tl.where((a < b) | (a != a), a, b)


@triton.jit
def power(x, y):
    """xʸ, of x above 0."""
    return tl.exp(y * tl.log(x))


@triton.jit
def chunk(chunks, program, ALIGNED: tl.constexpr):
    """Of which tensor, from which element, how many; multiples of 16 if ALIGNED, so that whole vectors are loaded."""
    tensor = tl.load(chunks + 3 * program)
    at = tl.load(chunks + 3 * program + 1)
    n = tl.load(chunks + 3 * program + 2).to(tl.int32)
    if ALIGNED:
        at = tl.multiple_of(at, 16)
        n = tl.multiple_of(n, 16)
    return tensor, at, n


@triton.jit
def address(cell, at, KIND: tl.constexpr, ALIGNED: tl.constexpr):
    """The address in a cell of a table, as a pointer to its element `at`."""
    pointer = tl.load(cell).to(tl.pointer_type(KIND)) + at
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def by_chance(x, seed, i):
    """A float32 rounded to one that is a bfloat16: up or down, by chance, in proportion to the distance."""
    # bfloat16 is the upper half of float32: a random lower half added carries over as often as it is large.
    noise = tl.randint(seed, i).to(tl.int32) & 0xFFFF
    rounded = ((x.to(tl.int32, bitcast=True) + noise) & -65536).to(tl.float32, bitcast=True)
    return tl.where(tl.abs(x) < float("inf"), rounded, x)


@triton.jit(do_not_specialize=["first"])
def norms(gradients, chunks, sums, first, KIND: tl.constexpr, REAL: tl.constexpr, BLOCK: tl.constexpr, ALIGNED: tl.constexpr):  # fmt: skip  # noqa: E501
    """Σg² and the number of non-finite elements of each chunk."""
    program = first + tl.program_id(0)
    tensor, at, n = chunk(chunks, program, ALIGNED)
    a_g = address(gradients + tensor, at, KIND, ALIGNED)
    squares = tl.zeros([BLOCK], REAL)
    bad = tl.zeros([BLOCK], REAL)
    for start in range(0, n, BLOCK):
        i = start + tl.arange(0, BLOCK)
        g = tl.load(a_g + i, mask=i < n, other=0.0).to(REAL)
        squares += g * g
        bad += tl.where(tl.abs(g) < float("inf"), 0.0, 1.0)
    tl.store(sums + 2 * program, tl.sum(squares).to(tl.float64))
    tl.store(sums + 2 * program + 1, tl.sum(bad).to(tl.float64))
