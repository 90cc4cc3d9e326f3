"""From a rule's source to what kernels are made of: a loop body, and the coefficients it needs at each step.

What depends on settings alone is taken out of the rule and computed once a step, in double precision, whatever the
kernel's own: 1−β₂ᵗ in float32 would be off by 1e-5. What is left are statements on elements.
"""

from __future__ import annotations

import ast
import copy
import inspect
import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gradwise.optim.rules import scalars
from gradwise.optim.rules.rule import Rule

_NUMBERS = (bool, int, float)


class RuleError(ValueError):
    """A rule can't be compiled; says which, where and why."""


@dataclass(frozen=True)
class Formula:
    """A rule under given static settings, taken apart.

    Attributes:
        elements: names of parameter, gradient and the states there are, as the statements call them.
        body: statements on elements; each name `c0, c1, …` in them is a coefficient.
        result: the expressions for the new parameter and states, in the order of `elements` without the gradient.
        coefficients: `(*settings, *scalar states) -> (coefficients, new scalar states)`, in the rule's order.
        count: how many coefficients there are.
        text: all of the above as text; equal text, equal kernel.
    """

    elements: tuple[str, ...]
    body: tuple[ast.stmt, ...]
    result: tuple[ast.expr, ...]
    coefficients: Callable[..., tuple[tuple[Any, ...], tuple[Any, ...]]]
    count: int
    text: str


def reciprocal(x: Any) -> Any:
    """1/x, infinite at 0 as it is elementwise."""
    if isinstance(x, _NUMBERS) and x == 0:
        return math.copysign(math.inf, x)
    return 1.0 / x


def take_apart(rule: Rule, static: Mapping[str, bool]) -> Formula:
    """Inline helpers, fold static settings, take out what is the same for all elements."""
    function = _source(rule.update)
    known = dict(inspect.getclosurevars(rule.update).globals) | dict(inspect.getclosurevars(rule.update).nonlocals)
    names = rule.arguments
    absent = {a for a, s in zip(names[2:], rule.states, strict=True) if s.when is not None and not static[s.when]}
    scalar = {a for a, s in zip(names[2:], rule.states, strict=True) if s.scalar}
    elements = tuple(n for n in names if n not in absent | scalar)
    statements = _Inline(rule, known).block(function.body)
    statements = _Fold({k: bool(v) for k, v in static.items() if k in rule.settings}).block(statements)
    split = _Split(rule, set(elements), {*rule.settings, *scalar})
    *body, last = split.block(statements)
    if not isinstance(last, ast.Return) or last.value is None:
        raise _error(rule, function, "must end with one `return` of the parameter and its states, in order")
    values = last.value.elts if isinstance(last.value, ast.Tuple) else [last.value]
    if len(values) != len(names) - 1:
        raise _error(rule, last, f"returns {len(values)} values; needs {', '.join((names[0], *names[2:]))}")
    new = dict(zip((names[0], *names[2:]), values, strict=True))
    result = tuple(new[n] for n in elements if n != names[1])
    arguments = [*rule.settings, *(n for n in names[2:] if n in scalar)]
    scalars_out = [ast.unparse(new[n]) for n in names[2:] if n in scalar]
    prologue = [*split.prologue, ast.parse(f"return ({_tuple(split.names)}), ({_tuple(scalars_out)})").body[0]]
    text = ast.unparse(_function("coefficients", arguments, prologue))
    namespace = {n: getattr(scalars, n) for n in scalars.PRIMITIVES} | {"reciprocal": reciprocal}
    exec(compile(text, f"<coefficients of {rule.name}>", "exec"), namespace)  # from the rule's own source
    shown = "\n".join([*map(ast.unparse, body), *map(ast.unparse, result), text])
    return Formula(elements, tuple(body), result, namespace["coefficients"], len(split.names), shown)


def helper(function: Callable[..., Any], arguments: Mapping[str, str]) -> str:
    """A helper of one `return` as an expression in the given names."""
    tree = _Inline(None, inspect.getclosurevars(function).globals).expression(_source(function).body[-1])
    return ast.unparse(_Rename({k: ast.parse(v, mode="eval").body for k, v in arguments.items()}).visit(tree))


def _source(function: Callable[..., Any]) -> ast.FunctionDef:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, SyntaxError) as error:
        raise RuleError(f"{function.__name__}: its source can't be read ({error}); rules live in a file") from None
    if not isinstance(tree, ast.FunctionDef):
        raise RuleError(f"{function.__name__}: a rule is a function made with `def`")
    if tree.body and isinstance(tree.body[0], ast.Expr) and isinstance(tree.body[0].value, ast.Constant):
        del tree.body[0]
    return tree


def _error(rule: Rule | None, node: ast.AST, what: str) -> RuleError:
    where = f"rule {rule.name}" if rule else "helper"
    return RuleError(f"{where}, line {getattr(node, 'lineno', 0)} of its source: {what}")


def _function(name: str, arguments: Sequence[str], body: Sequence[ast.stmt]) -> ast.Module:
    tree = ast.parse(f"def {name}({', '.join(arguments)}): pass")
    definition = tree.body[0]
    assert isinstance(definition, ast.FunctionDef)
    definition.body = list(body)
    return ast.fix_missing_locations(tree)


def _tuple(names: Sequence[str]) -> str:
    return "".join(f"{n}, " for n in names)


class _Rename(ast.NodeTransformer):
    def __init__(self, names: Mapping[str, ast.expr]) -> None:
        self.names = names

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id not in self.names:
            return node
        new = copy.deepcopy(self.names[node.id])
        if isinstance(new, ast.Name):
            new.ctx = node.ctx
        return new


class _Inline(ast.NodeTransformer):
    """Calls of helpers become their expressions; global constants become numbers; `x += y` becomes `x = x + y`."""

    def __init__(self, rule: Rule | None, known: Mapping[str, Any]) -> None:
        self.rule, self.known = rule, known

    def block(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        for statement in body:
            if not isinstance(statement, ast.Assign | ast.AugAssign | ast.If | ast.Return):
                raise _error(self.rule, statement, f"{ast.unparse(statement)!r}: only `name = …`, `if` and `return`")
        return [self.visit(copy.deepcopy(s)) for s in body]

    def expression(self, node: ast.stmt) -> ast.expr:
        if not isinstance(node, ast.Return) or node.value is None:
            raise _error(self.rule, node, "a helper of a rule is a single `return`")
        value: ast.expr = self.visit(copy.deepcopy(node.value))
        return value

    def visit_AugAssign(self, node: ast.AugAssign) -> ast.AST:
        if not isinstance(node.target, ast.Name):
            raise _error(self.rule, node, "only names can be assigned to")
        value = ast.BinOp(ast.Name(node.target.id, ast.Load()), node.op, node.value)
        new: ast.AST = self.visit(ast.Assign([ast.Name(node.target.id, ast.Store())], value, lineno=node.lineno))
        return new

    def visit_Name(self, node: ast.Name) -> ast.expr:
        value = self.known.get(node.id)
        return ast.Constant(value) if isinstance(value, _NUMBERS) and isinstance(node.ctx, ast.Load) else node

    def visit_Call(self, node: ast.Call) -> ast.expr:
        arguments = [self.visit(a) for a in node.args]
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        function = self.known.get(name)
        if name == "abs" and function is None:
            name, function = "absolute", scalars.absolute
        for primitive in scalars.PRIMITIVES:
            if function is getattr(scalars, primitive):
                return ast.Call(ast.Name(primitive, ast.Load()), arguments, [])
        if not inspect.isfunction(function) or node.keywords:
            what = ast.unparse(node.func)
            raise _error(self.rule, node, f"calls {what}: a rule may call {', '.join(scalars.PRIMITIVES)} and helpers")
        tree = _source(function)
        parameters = [a.arg for a in tree.args.args]
        if len(tree.body) != 1 or len(parameters) != len(arguments):
            raise _error(self.rule, node, f"{name} is not a helper: a single `return`, all arguments by position")
        inner = _Inline(self.rule, inspect.getclosurevars(function).globals).expression(tree.body[0])
        new: ast.expr = _Rename(dict(zip(parameters, arguments, strict=True))).visit(inner)
        return new


class _Fold(ast.NodeTransformer):
    """`if` on a static setting becomes the branch that is taken."""

    def __init__(self, static: Mapping[str, bool]) -> None:
        self.static = static

    def block(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        new: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.If):
                truth = self.truth(statement.test)
                if truth is None:
                    statement.body, statement.orelse = self.block(statement.body), self.block(statement.orelse)
                    new.append(statement)
                else:
                    new += self.block(statement.body if truth else statement.orelse)
            else:
                new.append(self.visit(statement))
        return new

    def truth(self, test: ast.expr) -> bool | None:
        if isinstance(test, ast.Name):
            return self.static.get(test.id)
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            truth = self.truth(test.operand)
            return None if truth is None else not truth
        return None

    def visit_IfExp(self, node: ast.IfExp) -> ast.AST:
        truth = self.truth(node.test)
        return self.generic_visit(node) if truth is None else self.visit(node.body if truth else node.orelse)


class _Split:
    """Separates what is the same for all elements (`prologue`) from statements on elements."""

    def __init__(self, rule: Rule, elements: set[str], same: set[str]) -> None:
        self.rule, self.elements, self.same = rule, elements, same
        self.prologue: list[ast.stmt] = []
        self.names: list[str] = []
        self._found: dict[str, str] = {}

    def block(self, body: Sequence[ast.stmt]) -> list[ast.stmt]:
        new: list[ast.stmt] = []
        for statement in body:
            if isinstance(statement, ast.If):
                new += self.branch(statement)
            elif isinstance(statement, ast.Return):
                new.append(ast.Return(self.results(statement)))
            elif isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name):
                target = statement.targets[0].id
                if self.is_same(statement.value):
                    self.prologue.append(statement)
                    self.elements.discard(target)
                    self.same.add(target)
                    self._found.clear()  # what was computed from the old value is something else
                else:
                    statement.value = self.taken(statement.value)
                    self.elements.add(target)
                    self.same.discard(target)
                    new.append(statement)
            else:
                raise _error(self.rule, statement, f"{ast.unparse(statement)!r}: only `name = …`, `if` and `return`")
        return new

    def branch(self, statement: ast.If) -> list[ast.stmt]:
        if not self.is_same(statement.test):
            raise _error(self.rule, statement, "`if` is for settings; on elements use where(condition, a, b)")
        first, before = self.apart(statement.body)
        second, after = self.apart(statement.orelse)
        if before or after:
            made = {t.id for s in (*before, *after) for t in ast.walk(s) if isinstance(t, ast.Name) and _stored(t)}
            fresh = sorted(n for n in made if n in self.names)
            self.prologue += [ast.parse(f"{n} = 0.0").body[0] for n in fresh]
            self.prologue.append(ast.If(statement.test, before or [ast.Pass()], after))
        if not (first or second):
            return []
        flag = self.coefficient(ast.parse(f"1.0 if {ast.unparse(statement.test)} else 0.0", mode="eval").body)
        test = ast.parse(f"{flag.id} != 0", mode="eval").body
        return [ast.If(test, first or [ast.Pass()], second)]

    def apart(self, body: Sequence[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
        """A branch's statements on elements, and its own prologue: what it computes is not there in others."""
        outer, self.prologue = self.prologue, []
        self._found.clear()
        statements = self.block(body)
        self._found.clear()
        inner, self.prologue = self.prologue, outer
        return statements, inner

    def results(self, statement: ast.Return) -> ast.expr:
        values = statement.value.elts if isinstance(statement.value, ast.Tuple) else [statement.value]
        scalar = [s.scalar for s in self.rule.states]
        if len(values) != 1 + len(scalar):
            return statement.value or ast.Constant(None)
        new = []
        for value, whole in zip(values, (False, *scalar), strict=True):
            if value is None or (whole and not self.is_same(value)):
                raise _error(self.rule, statement, "a scalar state is computed from settings alone")
            new.append(value if whole else self.taken(value))
        return ast.Tuple(new, ast.Load())

    def is_same(self, node: ast.expr) -> bool:
        """Whether it has the same value for all elements."""
        names = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)} - set(scalars.PRIMITIVES)
        for name in sorted(names - self.same - self.elements):
            if name not in {*self.rule.arguments}:
                raise _error(self.rule, node, f"{name!r} is not known there")
        return not names & self.elements and names <= self.same

    def taken(self, node: ast.expr) -> ast.expr:
        """The expression with what is the same for all elements replaced by coefficients."""
        if isinstance(node, ast.Constant):
            return node
        if isinstance(node, ast.UnaryOp) and isinstance(node.operand, ast.Constant):
            return node
        if self.is_same(node):
            return self.coefficient(node)
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div) and self.is_same(node.right):
            inverse = ast.Call(ast.Name("reciprocal", ast.Load()), [node.right], [])
            return ast.BinOp(self.taken(node.left), ast.Mult(), self.coefficient(inverse))
        if isinstance(node, ast.IfExp):
            if not self.is_same(node.test):
                raise _error(self.rule, node, "`a if … else b` is for settings; on elements use where(condition, a, b)")
            flag = self.coefficient(ast.IfExp(node.test, ast.Constant(1.0), ast.Constant(0.0)))
            test = ast.Compare(flag, [ast.NotEq()], [ast.Constant(0)])
            call = ast.Name("where", ast.Load())
            return ast.Call(call, [test, self.taken(node.body), self.taken(node.orelse)], [])
        for name, value in ast.iter_fields(node):
            if name == "func":
                continue
            if isinstance(value, ast.expr):
                setattr(node, name, self.taken(value))
            elif isinstance(value, list):
                setattr(node, name, [self.taken(v) if isinstance(v, ast.expr) else v for v in value])
        return node

    def coefficient(self, node: ast.expr) -> ast.Name:
        text = ast.unparse(node)
        if text not in self._found:
            name = f"c{len(self.names)}"
            self.names.append(name)
            self._found[text] = name
            self.prologue.append(ast.Assign([ast.Name(name, ast.Store())], node, lineno=0))
        return ast.Name(self._found[text], ast.Load())


def _stored(node: ast.Name) -> bool:
    return isinstance(node.ctx, ast.Store)
