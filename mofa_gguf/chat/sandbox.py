"""Jinja's immutable sandbox as chat templates expect it, with a meter built into the code.

The environment equals the one Hugging Face's ``apply_chat_template`` documents (trimmed blocks,
loop controls, ``generation`` tags, ``raise_exception``, ``strftime_now``, a ``tojson`` that does
not escape HTML); see https://huggingface.co/docs/transformers/chat_templating_writing.

What is added is cost control (:mod:`mofa_gguf.chat.limits`), by calls to a meter inside the Python
code that a template becomes (:mod:`mofa_gguf.chat.codegen`). The alternatives are worse: a
rendering thread cannot be killed, and a tracer slows every line of a rendering down, sound
templates included, without seeing inside one long C call.
"""

from __future__ import annotations

import functools
import json
import threading
import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.filters import make_attrgetter
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from markupsafe import Markup

from mofa_gguf.chat import guards
from mofa_gguf.chat.codegen import MeteredCode
from mofa_gguf.chat.limits import Meter
from mofa_gguf.chat.template_words import DictFactory, GenerationTag, SafeNamespace, raise_exception


class _BoundedFormatter(SandboxedFormatter):
    """``str.format`` whose fields are weighed before they become text."""

    def __init__(self, environment: ChatEnvironment) -> None:
        super().__init__(environment)
        self._environment = environment

    def convert_field(self, value: Any, conversion: Any) -> Any:
        self._environment.meter.weigh(value)
        return super().convert_field(value, conversion)

    def format_field(self, value: Any, format_spec: str) -> Any:
        guards.check_format_spec(format_spec)
        self._environment.meter.weigh(value)
        text = super().format_field(value, format_spec)
        self._environment.spend(len(text))
        return text


class ChatEnvironment(ImmutableSandboxedEnvironment):
    """The environment one chat template is compiled in.

    Rendering happens inside ``with environment.metered(meter)``; several threads may render at
    once, each with its own meter. ``growing_lists`` lets templates append text to lists and pop
    from them, which transformers' sandbox does not.
    """

    code_generator_class = MeteredCode
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self, *, now: Callable[[], datetime], growing_lists: bool = False) -> None:
        self._growing_lists = growing_lists
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[GenerationTag, loopcontrols],
            finalize=self._output,
        )
        self._local = threading.local()
        self.filters["tojson"] = self._tojson
        self.filters["sum"] = self._sum
        for name, function in list(self.filters.items()):
            self.filters[name] = self._metered_filter(name, function)
        del self.globals["lipsum"]  # random text, of any length
        self.globals.update(
            dict=DictFactory(),
            namespace=SafeNamespace,
            raise_exception=raise_exception,
            strftime_now=lambda format: now().strftime(format),
        )

    @property
    def meter(self) -> Meter:
        """The running rendering's meter; AttributeError outside of one.

        Jinja tries to compute constant expressions while it compiles. The error makes it leave
        them for the rendering, where they are metered.
        """
        meter: Meter = self._local.meter
        return meter

    @contextmanager
    def metered(self, meter: Meter) -> Iterator[None]:
        """Charge everything the calling thread renders to ``meter``."""
        self._local.meter = meter
        try:
            yield
        finally:
            del self._local.meter

    # Called by compiled templates.

    def tick(self) -> None:
        """One step."""
        self._local.meter.tick()

    def spend(self, n_chars: int) -> None:
        """Text of the template's own is put out."""
        self._local.meter.spend(n_chars)

    def made(self, value: Any) -> Any:
        """A value was made; gives it back."""
        meter = self._local.meter
        if isinstance(value, (str, bytes, list, tuple, dict)):
            meter.spend(meter.weigh(value))
        elif isinstance(value, types.GeneratorType):
            return self._metered_items(value)
        else:
            meter.tick()
        return value

    def joined(self, parts: tuple[Any, ...]) -> str:
        """``a ~ b ~ c``."""
        meter = self._local.meter
        meter.spend(sum(meter.weigh(part) for part in parts))
        return "".join([str(part) for part in parts])

    def _output(self, value: Any) -> Any:
        meter = self.meter
        meter.spend(meter.weigh(value))
        return value

    def _metered_items(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self._local.meter.tick()
            yield item

    # Hooks of Jinja's sandbox.

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        if self._growing_lists and isinstance(obj, list) and attr in ("append", "pop"):
            return True
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        meter = self._local.meter
        if operator == "+":
            if isinstance(left, str) and isinstance(right, str):
                meter.spend(len(left) + len(right))
                return left + right
            return self.made(left + right)
        if operator == "*":
            guards.check_times(meter, left, right)
        elif operator == "**":
            guards.check_power(left, right)
        elif isinstance(left, (str, bytes)):
            guards.check_format(meter, str(left), right)
        return self.made(super().call_binop(context, operator, left, right))

    def call(self, context: Context, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        meter = self._local.meter
        meter.tick()
        if isinstance(function, types.BuiltinFunctionType):
            guards.check_method(meter, function, args, kwargs)
            if function.__name__ == "append" and not all(isinstance(a, str) for a in args):
                # A list inside itself has no end.
                raise jinja2.exceptions.SecurityError("only text may be appended to a list")
        return self.made(super().call(context, function, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        if super().wrap_str_format(value) is None:
            return None
        text, name = value.__self__, value.__name__
        formatter = _BoundedFormatter(self)

        def bounded_format(*args: Any, **kwargs: Any) -> str:
            if isinstance(text, Markup):
                raise jinja2.exceptions.SecurityError("markup cannot be formatted")
            if name == "format_map":
                (kwargs,) = args
                args = ()
            return formatter.vformat(text, args, kwargs)

        return bounded_format

    # Filters.

    def _metered_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        guard = guards.FILTER_GUARDS.get(name)
        # Jinja hands some filters its environment or context in front of the value.
        first = 0 if getattr(function, "jinja_pass_arg", None) is None else 1

        @functools.wraps(function)
        def metered(*args: Any, **kwargs: Any) -> Any:
            meter = self.meter
            meter.tick()
            if guard is not None:
                guard(meter, *args[first:], **kwargs)
            elif name in guards.SLOW_FILTERS:
                guards.check_slow(meter, name, args[first])
            return self.made(function(*args, **kwargs))

        return metered

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        """JSON as Hugging Face templates expect it: not escaped for HTML, unlike Jinja's own."""
        encoder = json.JSONEncoder(
            ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
        )
        if indent is None and separators is None:
            return encoder.encode(value)
        # Piece by piece: indentation of deep values can outgrow the value by far.
        pieces = []
        for piece in encoder.iterencode(value):
            self.spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def _sum(self, values: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        """Jinja's ``sum``, step by step: Python's own adds lists in one quadratic go."""
        if attribute is not None:
            values = map(make_attrgetter(self, attribute), values)
        total = start
        for value in values:
            total = self.made(total + value)
        return total


def render(
    environment: ChatEnvironment,
    template: jinja2.Template,
    variables: Mapping[str, object],
    meter: Meter,
) -> str:
    """Render a compiled template. Raises whatever the template raises, unchanged."""
    with environment.metered(meter):
        # Template.render would rewrite the traceback of every error, at a high price.
        return "".join(template.root_render_func(template.new_context(dict(variables))))
