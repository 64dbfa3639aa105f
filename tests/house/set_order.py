"""No decision may depend on the order of a set.

Text hashes differently in every process, so a set of names has another order in every run: a
decision taken from it cannot be replayed. Sets are for membership; `sorted` makes them a sequence.

This reads syntax only: it knows a set by its display, its constructor, its annotation in the same
file, the operators on those, and operators on dictionary views. It does not follow values through
calls and other files; the simulator's trace hash is the second net.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from tests.house.rules import Fault, Source

SET_TYPES = {"set", "frozenset", "Set", "AbstractSet", "MutableSet", "FrozenSet"}
SET_METHODS = {"union", "intersection", "difference", "symmetric_difference", "copy"}
SET_OPERATORS = (ast.BitOr, ast.BitAnd, ast.BitXor, ast.Sub)
VIEWS = {"keys", "items"}

ORDER_FREE = {"sorted", "set", "frozenset", "any", "all", "len", "min", "max"}
"""Functions whose result does not depend on the order of what they take.

`min` and `max` do with a `key`, where it ties; a key for `sorted` must tell all items apart, which
only a reviewer can see. `sum` is not among them: floating-point addition depends on it.
"""
ORDERED = {"list", "tuple", "enumerate", "iter", "map", "filter", "zip", "reversed", "dict", "sum"}
ORDERED_METHODS = {"extend", "join", "fromkeys"}


def set_order(source: Source) -> Iterator[Fault]:
    """Every place where a set is iterated and the order can be seen."""
    finder = _Finder(_annotated_attributes(source.tree))
    finder.visit(source.tree)
    for line, what in finder.found:
        yield source.fault(line, f"{what}: the order of a set differs between runs; sort it")


def _is_set_type(annotation: ast.expr | None) -> bool:
    match annotation:
        case ast.Subscript(value=value):
            return _is_set_type(value)
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name in SET_TYPES
        case ast.BinOp(op=ast.BitOr(), left=left, right=right):
            return _is_set_type(left) or _is_set_type(right)
    return False


def _annotated_attributes(tree: ast.Module) -> set[str]:
    """Attributes that some class of the file annotates as a set, in its body or on `self`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for item in node.body:
                match item:
                    case ast.AnnAssign(target=ast.Name(id=name), annotation=annotation):
                        if _is_set_type(annotation):
                            names.add(name)
        match node:
            case ast.AnnAssign(target=ast.Attribute(attr=name), annotation=annotation):
                if _is_set_type(annotation):
                    names.add(name)
            case ast.Assign(targets=[ast.Attribute(attr=name)], value=value):
                if _makes_set(value):
                    names.add(name)
            case ast.FunctionDef(name=name, returns=returns) if _is_set_type(returns):
                names.add(name)  # `self.names()` and a property alike
    return names


def _makes_set(node: ast.expr) -> bool:
    match node:
        case ast.Set() | ast.SetComp():
            return True
        case ast.Call(func=ast.Name(id="set" | "frozenset")):
            return True
    return False


class _Finder(ast.NodeVisitor):
    def __init__(self, attributes: set[str]) -> None:
        self.attributes = attributes
        self.scopes: list[set[str]] = [set()]
        self.order_free: set[ast.AST] = set()
        self.found: list[tuple[int, str]] = []

    # --- what is a set --------------------------------------------------------------------------
    def is_set(self, node: ast.expr) -> bool:
        if _makes_set(node):
            return True
        match node:
            case ast.Name(id=name):
                return any(name in scope for scope in self.scopes)
            case ast.Attribute(attr=name):
                return name in self.attributes
            case ast.Call(func=ast.Name(id=name)):
                return name in self.attributes
            case ast.Call(func=ast.Attribute(value=value, attr=name)):
                return name in self.attributes or (name in SET_METHODS and self.is_set(value))
            case ast.BinOp(left=left, op=operator, right=right):
                return isinstance(operator, SET_OPERATORS) and any(
                    self.is_set(side) or self.is_view(side) for side in (left, right)
                )
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
        return False

    @staticmethod
    def is_view(node: ast.expr) -> bool:
        match node:
            case ast.Call(func=ast.Attribute(attr=name), args=[]):
                return name in VIEWS
        return False

    # --- scopes ---------------------------------------------------------------------------------
    def enter(self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) -> None:
        given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.scopes.append({item.arg for item in given if _is_set_type(item.annotation)})
        self.generic_visit(node)
        self.scopes.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self.enter(node)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self.enter(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if isinstance(node.target, ast.Name) and _is_set_type(node.annotation):
            self.scopes[-1].add(node.target.id)
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        for target in node.targets:
            if isinstance(target, ast.Name) and self.is_set(node.value):
                self.scopes[-1].add(target.id)
        self.generic_visit(node)

    # --- where order shows ----------------------------------------------------------------------
    def check(self, node: ast.expr, what: str) -> None:
        if self.is_set(node):
            self.found.append((node.lineno, what))

    def visit_For(self, node: ast.For) -> None:
        self.check(node.iter, "for over a set")
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        if node not in self.order_free:
            self.check(node.value, "a set unpacked")
        self.generic_visit(node)

    def visit_Set(self, node: ast.Set) -> None:
        self.order_free.update(node.elts)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self.comprehension(node, node.generators)

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self.comprehension(node, node.generators)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self.comprehension(node, node.generators)

    def comprehension(self, node: ast.expr, generators: list[ast.comprehension]) -> None:
        if node not in self.order_free:
            for generator in generators:
                self.check(generator.iter, "comprehension over a set")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        keyed = any(keyword.arg == "key" for keyword in node.keywords)
        match node.func:
            case ast.Name(id=name) if name in ORDERED:
                for argument in node.args:
                    self.check(argument, f"{name}() of a set")
            case ast.Name(id="min" | "max" as name) if keyed:
                for argument in node.args:
                    self.check(argument, f"{name}() of a set by a key, which may tie")
            case ast.Name(id=name) if name in ORDER_FREE:
                self.order_free.update(node.args)
            case ast.Attribute(value=value, attr="pop") if not node.args:
                self.check(value, "pop() of a set")
            case ast.Attribute(attr=name) if name in ORDERED_METHODS:
                for argument in node.args:
                    self.check(argument, f"{name}() of a set")
        self.generic_visit(node)
