"""Compiled templates that count their own steps.

Jinja turns a template into Python code. :class:`MeteredCode` writes calls to the environment
between the lines of that code, so that a meter (:mod:`mofa_gguf.chat.limits`) sees every statement,
loop turn, comparison and new value. The environment must have ``tick``, ``spend``, ``made`` and
``joined``, as the one of :mod:`mofa_gguf.chat.sandbox` has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from jinja2 import nodes
from jinja2.compiler import CodeGenerator, CompilerExit, Frame


class MeteredCode(CodeGenerator):
    """Writes the meter's calls between the lines of a compiled template.

    ``environment.tick()`` gives None, so ``(environment.tick() or x)`` is x with a step counted.
    """

    def blockvisit(self, statements: Any, frame: Frame) -> None:
        try:
            self.writeline("pass")
            for statement in statements:
                self.writeline("environment.tick()")
                self.visit(statement, frame)
        except CompilerExit:
            pass

    def visit_Output(self, node: nodes.Output, frame: Frame) -> None:  # noqa: N802
        n_chars = sum(len(part.data) for part in node.find_all(nodes.TemplateData))
        if n_chars:
            self.writeline(f"environment.spend({n_chars})")
        super().visit_Output(node, frame)

    def visit_Compare(self, node: nodes.Compare, frame: Frame) -> None:  # noqa: N802
        self.write("(environment.tick() or ")
        super().visit_Compare(node, frame)
        self.write(")")

    def visit_Test(self, node: nodes.Test, frame: Frame) -> None:  # noqa: N802
        self.write("(environment.tick() or ")
        super().visit_Test(node, frame)
        self.write(")")

    def visit_Concat(self, node: nodes.Concat, frame: Frame) -> None:  # noqa: N802
        self.write("environment.joined((")
        for part in node.nodes:
            self.visit(part, frame)
            self.write(", ")
        self.write("))")

    def visit_List(self, node: nodes.List, frame: Frame) -> None:  # noqa: N802
        self._made(super().visit_List, node, frame)

    def visit_Dict(self, node: nodes.Dict, frame: Frame) -> None:  # noqa: N802
        self._made(super().visit_Dict, node, frame)

    def visit_Tuple(self, node: nodes.Tuple, frame: Frame) -> None:  # noqa: N802
        if node.ctx == "load":
            self._made(super().visit_Tuple, node, frame)
        else:
            super().visit_Tuple(node, frame)

    def visit_Getitem(self, node: nodes.Getitem, frame: Frame) -> None:  # noqa: N802
        if isinstance(node.arg, nodes.Const):
            super().visit_Getitem(node, frame)
        else:
            self._made(super().visit_Getitem, node, frame)

    def _made(self, visit: Callable[[Any, Frame], None], node: nodes.Node, frame: Frame) -> None:
        self.write("environment.made(")
        visit(node, frame)
        self.write(")")
