"""Hold source code to a surface of TensorRT: an AST walk that follows types from `trt.X` through calls and attributes.

Types come from `trt.X` itself, from annotations such as `config: trt.IBuilderConfig`, from the returns of pybind11
signatures, and from functions of the same sources that are annotated to return `trt.X`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MODULE = "trt"


@dataclass(frozen=True)
class Type:
    """What is known of an expression. `kind`: module, class, instance, function or list; `name` is a class path."""

    kind: str
    name: str = ""
    signatures: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Problem:
    """A line that does not fit the surface. `rule` is what TensorRT does not have or take: "name", "method" (to
    override), "property" (to assign), "arguments" or "type"; `name` is what the line names."""

    file: str
    line: int
    rule: str
    name: str
    detail: str = ""


@dataclass
class Report:
    """What was held against the surface (`used`, such as `IBuilderConfig.set_flag()`) and what it does not have."""

    version: str
    used: set[str] = field(default_factory=set)
    problems: list[Problem] = field(default_factory=list)


def check(sources: Mapping[str, str], surface: Mapping[str, Any]) -> Report:
    """Hold every source (name to text) to the surface."""
    report = Report(surface["version"])
    trees = {name: ast.parse(text) for name, text in sources.items()}
    returns: dict[str, str] = {}
    for tree in trees.values():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (name := _annotated(node.returns)):
                returns[node.name] = name
    for name, tree in trees.items():
        _Walk(name, surface, returns, report).body(tree.body, {MODULE: Type("module")})
    return report


def _annotated(annotation: ast.expr | None) -> str | None:
    """`trt.X` as "X"; the first such part of `trt.X | None`."""
    if isinstance(annotation, ast.BinOp):
        return _annotated(annotation.left) or _annotated(annotation.right)
    if annotation is None:
        return None
    text = ast.unparse(annotation)
    return text.removeprefix(f"{MODULE}.") if text.startswith(f"{MODULE}.") else None


class _Walk:
    def __init__(self, file: str, surface: Mapping[str, Any], returns: Mapping[str, str], report: Report) -> None:
        self.file, self.surface, self.returns, self.report = file, surface, returns, report

    # Statements

    def body(self, statements: Sequence[ast.stmt], scope: dict[str, Type | None]) -> None:
        for statement in statements:
            self.statement(statement, scope)

    def statement(self, node: ast.stmt, scope: dict[str, Type | None]) -> None:
        if isinstance(node, ast.FunctionDef):
            self.function(node, scope)
        elif isinstance(node, ast.ClassDef):
            self.class_definition(node, scope)
        elif isinstance(node, ast.Assign):
            value = self.type_of(node.value, scope)
            for target in node.targets:
                self.assign(target, value, node.value, scope)
        elif isinstance(node, ast.AnnAssign):
            value = self.type_of(node.value, scope) if node.value else None
            declared = self.annotation(node.annotation, scope)
            self.assign(node.target, declared or value, node.value or node.annotation, scope)
        elif isinstance(node, ast.For):
            listed = self.type_of(node.iter, scope)
            self.assign(node.target, _element(listed), node.iter, scope)
            self.body([*node.body, *node.orelse], scope)
        elif isinstance(node, ast.With):
            for item in node.items:
                value = self.type_of(item.context_expr, scope)
                if item.optional_vars is not None:
                    self.assign(item.optional_vars, value, item.context_expr, scope)
            self.body(node.body, scope)
        else:
            for child in ast.iter_child_nodes(node):
                if isinstance(child, ast.stmt):
                    self.statement(child, scope)
                elif isinstance(child, ast.ExceptHandler):
                    self.body(child.body, scope)
                elif isinstance(child, ast.expr):
                    self.type_of(child, scope)

    def function(self, node: ast.FunctionDef, scope: Mapping[str, Type | None]) -> None:
        inner = dict(scope)
        arguments = node.args
        for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
            inner[argument.arg] = self.annotation(argument.annotation, scope)
            if argument.arg == MODULE:
                inner[MODULE] = Type("module")
        self.annotation(node.returns, scope)
        self.body(node.body, inner)

    def class_definition(self, node: ast.ClassDef, scope: Mapping[str, Type | None]) -> None:
        for base in node.bases:
            known = self.type_of(base, scope)
            if known is None or known.kind != "class":
                continue
            methods = self.record(known.name)["methods"]
            for each in node.body:
                if not isinstance(each, ast.FunctionDef) or each.name.startswith("_"):
                    continue
                given = len(each.args.args)
                if each.name not in methods:
                    self.problem(each, "method", f"{known.name}.{each.name}")
                elif given not in {len(signature["parameters"]) for signature in methods[each.name]}:
                    self.problem(each, "arguments", f"{known.name}.{each.name}", f"{given - 1} given")
                else:
                    self.report.used.add(f"{known.name}.{each.name}()")
        self.body(node.body, dict(scope))

    def assign(self, target: ast.expr, value: Type | None, source: ast.expr, scope: dict[str, Type | None]) -> None:
        if isinstance(target, ast.Name):
            scope[target.id] = value
        elif isinstance(target, ast.Tuple):
            parts = source.elts if isinstance(source, ast.Tuple) and len(source.elts) == len(target.elts) else None
            for index, element in enumerate(target.elts):
                part = parts[index] if parts else source
                self.assign(element, self.type_of(part, scope) if parts else None, part, scope)
        elif isinstance(target, ast.Attribute):
            base = self.type_of(target.value, scope)
            if base is not None and base.kind == "instance":
                self.assign_property(target, base, value)

    def assign_property(self, target: ast.Attribute, base: Type, value: Type | None) -> None:
        properties = self.record(base.name)["properties"]
        if target.attr not in properties:
            self.problem(target, "property", f"{base.name}.{target.attr}")
        elif not properties[target.attr]["writable"]:
            self.problem(target, "property", f"{base.name}.{target.attr}", "read-only")
        else:
            self.fits(target, value, properties[target.attr]["type"], f"{base.name}.{target.attr}")
            self.report.used.add(f"{base.name}.{target.attr} =")

    # Expressions

    def type_of(self, node: ast.expr, scope: Mapping[str, Type | None]) -> Type | None:
        if isinstance(node, ast.Name):
            return scope.get(node.id)
        if isinstance(node, ast.Attribute):
            return self.attribute(node, self.type_of(node.value, scope))
        if isinstance(node, ast.Call):
            return self.call(node, scope)
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)):
            inner = dict(scope)
            for each in node.generators:
                self.assign(each.target, _element(self.type_of(each.iter, inner)), each.iter, inner)
                for condition in each.ifs:
                    self.type_of(condition, inner)
            if isinstance(node, ast.DictComp):
                self.type_of(node.key, inner)
                self.type_of(node.value, inner)
                return None
            element = self.type_of(node.elt, inner)
            return Type("list", element.name) if element and element.kind == "instance" else None
        if isinstance(node, ast.Dict):
            values = [self.type_of(each, scope) for each in node.values]
            for key in node.keys:
                if key is not None:
                    self.type_of(key, scope)
            first = values[0] if values else None
            return Type("list", first.name) if first and all(each == first for each in values) else None
        if isinstance(node, ast.Subscript):
            self.type_of(node.slice, scope)
            return _element(self.type_of(node.value, scope))
        if isinstance(node, ast.Lambda):
            return self.type_of(node.body, scope)
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):
                self.type_of(child, scope)
        return None

    def attribute(self, node: ast.Attribute, base: Type | None) -> Type | None:
        name = node.attr
        if base is None or base.kind in ("list", "function"):
            return None
        if base.kind == "module":
            if name in self.surface["classes"]:
                self.report.used.add(name)
                return Type("class", name)
            if name in self.surface["functions"]:
                self.report.used.add(name)
                return Type("function", name, tuple(self.surface["functions"][name]))
            if name not in self.surface["constants"]:
                self.problem(node, "name", f"tensorrt.{name}")
            return None
        record = self.record(base.name)
        path = f"{base.name}.{name}"
        if base.kind == "class" and record["members"] is not None and name in record["members"]:
            self.report.used.add(path)
            return Type("instance", base.name)
        if base.kind == "class" and name in record["nested"]:
            self.report.used.add(path)
            return Type("class", path)
        if name in record["methods"]:
            listed = record["methods"][name]
            if base.kind == "instance":
                listed = [{**each, "parameters": each["parameters"][1:]} for each in listed]
            self.report.used.add(f"{path}()")
            return Type("function", path, tuple(listed))
        if base.kind == "instance" and name in record["properties"]:
            self.report.used.add(path)
            return self.named(record["properties"][name]["type"])
        if not name.startswith("__"):
            self.problem(node, "name", f"{base.name}.{name}")
        return None

    def call(self, node: ast.Call, scope: Mapping[str, Type | None]) -> Type | None:
        called = self.type_of(node.func, scope)
        given = [self.type_of(argument, scope) for argument in node.args]
        keywords = {each.arg: self.type_of(each.value, scope) for each in node.keywords}
        if called is None:
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            return self.named(self.returns[name]) if name in self.returns else None
        if called.kind == "class":
            made = self.record(called.name)["methods"].get("__init__", [])
            signatures = [{**each, "parameters": each["parameters"][1:]} for each in made]
            self.arguments(node, called.name, signatures, given, keywords)
            return Type("instance", called.name)
        if called.kind == "function":
            self.arguments(node, called.name, called.signatures, given, keywords)
            return self.named(called.signatures[0]["returns"]) if called.signatures else None
        return None

    def arguments(
        self,
        node: ast.Call,
        name: str,
        signatures: Sequence[Any],
        given: Sequence[Type | None],
        keywords: Mapping[str | None, Type | None],
    ) -> None:
        """One of the signatures must take the arguments by number, keyword and TensorRT type."""
        if not signatures:
            return
        complaints = []
        for signature in signatures:
            parameters = signature["parameters"]
            names = [each["name"] for each in parameters]
            by_name = dict(zip(names, given, strict=False))
            unknown = [keyword for keyword in keywords if keyword not in names or keyword in by_name]
            missing = [
                each["name"]
                for each in parameters
                if each["required"] and each["name"] not in by_name and each["name"] not in keywords
            ]
            if len(given) > len(names) or unknown or missing:
                complaints.append(("arguments", f"takes ({', '.join(names)})"))
                continue
            types = {each["name"]: each["type"] for each in parameters}
            wrong = [
                f"'{key}' is {types[key]}, not {value.name}"
                for key, value in {**by_name, **keywords}.items()
                if value is not None and not self.compatible(value, types[str(key)])
            ]
            if not wrong:
                return
            complaints.append(("type", "; ".join(wrong)))
        rule, detail = complaints[0]
        self.problem(node, rule, name, detail)

    # Names

    def fits(self, node: ast.expr, value: Type | None, wanted: str, place: str) -> None:
        if value is not None and not self.compatible(value, wanted):
            self.problem(node, "type", place, f"is {wanted}, not {value.name}")

    def compatible(self, value: Type, wanted: str) -> bool:
        """A TensorRT type where one is wanted must be that one; anything else is not judged."""
        if value.kind != "instance" or self.named(wanted) is None:
            return True
        return value.name == wanted or wanted in self.record(value.name)["bases"]

    def annotation(self, node: ast.expr | None, scope: Mapping[str, Type | None]) -> Type | None:
        name = _annotated(node)
        if name is None or node is None:
            return None
        known = self.named(name)
        if known is None:
            self.problem(node, "name", f"tensorrt.{name}")
        return known

    def named(self, name: str) -> Type | None:
        try:
            self.record(name)
        except KeyError:
            return None
        return Type("instance", name)

    def record(self, path: str) -> Any:
        first, *rest = path.split(".")
        record = self.surface["classes"][first]
        for part in rest:
            record = record["nested"][part]
        return record

    def problem(self, node: ast.expr | ast.stmt, rule: str, name: str, detail: str = "") -> None:
        self.report.problems.append(Problem(self.file, node.lineno, rule, name, detail))


def _element(listed: Type | None) -> Type | None:
    return Type("instance", listed.name) if listed is not None and listed.kind == "list" else None
