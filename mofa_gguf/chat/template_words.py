"""What chat templates may say beyond Jinja's own words, without reaching into Python's insides.

:mod:`mofa_gguf.chat.sandbox` puts them into a template's environment and meters what they make.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.utils import Namespace


class Refusal(jinja2.TemplateError):
    """What ``raise_exception`` raises inside a template."""


class GenerationTag(Extension):
    """``{% generation %}`` marks what the assistant wrote, for training; here it is passed through.

    Its body has a scope of its own, like the body of a call block.
    """

    tags = {"generation"}  # noqa: RUF012 - the shape Jinja's base class asks for

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("body"), [], [], body).set_lineno(line)

    def body(self, caller: Callable[[], str]) -> str:
        return caller()


class SafeNamespace(Namespace):
    """``namespace(...)`` without underscore names, which could reach into Python objects."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, *rest = args
        values = dict(*rest, **kwargs)
        for name in values:
            _check_namespace_name(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_namespace_name(name)
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        # Not its contents: namespaces inside namespaces could make that endless.
        return "<Namespace>"


def _check_namespace_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise jinja2.exceptions.SecurityError(f"a namespace attribute may not be named {name!r}")


class DictFactory:
    """``dict(...)`` and ``dict.fromkeys(...)``, without the type object behind them."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


def raise_exception(message: Any = "") -> None:
    """``raise_exception(message)`` of a template."""
    raise Refusal(str(message))
