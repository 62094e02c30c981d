"""What the amplifying operations of Jinja and Python may make, checked before they run.

A handful of filters, methods and operators can turn a small argument into an enormous result in
one C call, which no clock can interrupt: ``"x"|center(10**10)``, ``10**10**10``,
``"%1000000000d" % 1``. Each has a guard here that estimates the result and asks the meter first.
Everything not listed gives a result about as large as its arguments, which are bounded already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sized
from typing import Any

from mofa_gguf.chat.errors import TemplateTooCostly
from mofa_gguf.chat.limits import Meter

_MAX_INT_BITS = 16_384
_MAX_FIELD_WIDTH = 10_000
_MAX_INDENT = 64
_MAX_SLOW_CHARS = 20_000
_MAX_UNSIZED_SEPARATOR = 100

# Filters that walk over their text with Python code or backtracking: short texts only.
SLOW_FILTERS = frozenset(
    {"capitalize", "pprint", "striptags", "title", "urlize", "wordcount", "wordwrap", "xmlattr"}
)

# The flags, width and precision of a printf-style field.
_FIELD = re.compile(r"%(?:\([^)]*\))?([-+ #0-9.*]*)")
_DIGITS = re.compile(r"[0-9]+")

Guard = Callable[..., None]


def check_slow(meter: Meter, name: str, value: object) -> None:
    """Refuse a long text for one of the SLOW_FILTERS."""
    if meter.weigh(value) > _MAX_SLOW_CHARS:
        raise TemplateTooCostly(f"the filter {name!r} on more than {_MAX_SLOW_CHARS} characters")


def check_format(meter: Meter, spec: str, arguments: object) -> None:
    """``spec % arguments``: widths are bounded, and so is using one argument many times."""
    fields = _FIELD.findall(spec)
    for field in fields:
        if "*" in field:
            raise TemplateTooCostly("a field whose width is an argument")
        check_format_spec(field)
    meter.allow(len(spec) + len(fields) * meter.weigh(arguments))


def check_format_spec(spec: str) -> None:
    """What follows the colon in ``str.format``: its width and precision are bounded."""
    for width in _DIGITS.findall(spec):
        if len(width) > 9 or int(width) > _MAX_FIELD_WIDTH:
            raise TemplateTooCostly(f"a field width above {_MAX_FIELD_WIDTH}")


def check_times(meter: Meter, left: object, right: object) -> None:
    """``left * right``."""
    if isinstance(left, int) and isinstance(right, int):
        if left.bit_length() + right.bit_length() > _MAX_INT_BITS:
            raise TemplateTooCostly("a number with thousands of digits")
        return
    sequence, factor = (right, left) if isinstance(left, int) else (left, right)
    if not isinstance(factor, int):
        return
    if isinstance(sequence, (str, bytes)):
        meter.allow(len(sequence) * factor)
    elif isinstance(sequence, (list, tuple)):
        meter.allow(meter.weigh(sequence) * factor)


def check_power(left: object, right: object) -> None:
    """``left ** right``."""
    if (
        isinstance(left, int)
        and isinstance(right, int)
        and left.bit_length() * abs(right) > _MAX_INT_BITS
    ):
        raise TemplateTooCostly("a number with thousands of digits")


def _text(value: object) -> str:
    return value if isinstance(value, str) else str(value)


def _width(meter: Meter, _value: object, width: object = 80, *_: object, **__: object) -> None:
    if isinstance(width, int):
        meter.allow(width)


def _indent(meter: Meter, value: object, width: object = 4, *_: object, **__: object) -> None:
    meter.weigh(value)
    n = len(width) if isinstance(width, str) else width
    if isinstance(n, int):
        text = _text(value)
        meter.allow(len(text) + (text.count("\n") + 1) * max(0, n))


def _replace(
    meter: Meter, value: object, old: object = "", new: object = "", *_: object, **__: object
) -> None:
    meter.weigh(value)
    meter.weigh(new)
    text, old, new = _text(value), _text(old), _text(new)
    n_found = text.count(old)
    meter.allow(len(text) + n_found * len(new))


def _join(meter: Meter, separator: object, items: object) -> None:
    weight = meter.weigh(separator)
    if isinstance(items, Sized):
        meter.allow(meter.weigh(items) + len(items) * weight)
    elif weight > _MAX_UNSIZED_SEPARATOR:
        raise TemplateTooCostly("a long text between items that were not counted")


def _join_filter(meter: Meter, items: object, d: object = "", *_: object, **__: object) -> None:
    _join(meter, d, items)


def _join_method(meter: Meter, separator: object, items: object = (), *_: object) -> None:
    _join(meter, separator, items)


def _count(_meter: Meter, _value: object, n: object = 1, *_: object, **__: object) -> None:
    if isinstance(n, int) and n > 100_000:
        raise TemplateTooCostly(f"{n} rows or columns")


def _precision(
    _meter: Meter, _value: object, precision: object = 0, *_: object, **__: object
) -> None:
    if isinstance(precision, int) and abs(precision) > 300:
        raise TemplateTooCostly(f"rounding to {precision} places")


def _number_text(meter: Meter, value: object, *_: object, **__: object) -> None:
    if isinstance(value, str) and len(value) > 1000:
        raise TemplateTooCostly("a number with thousands of digits")
    meter.weigh(value)


def _format_filter(meter: Meter, value: object, *args: object, **kwargs: object) -> None:
    meter.weigh(value)
    check_format(meter, _text(value), args or kwargs)


def _list(meter: Meter, value: object, *_: object, **__: object) -> None:
    if isinstance(value, str):
        meter.allow(16 * len(value))


def _tojson(meter: Meter, value: object, *args: object, indent: object = None, **_: object) -> None:
    meter.weigh(value)
    indent = args[1] if len(args) > 1 else indent
    n = len(indent) if isinstance(indent, str) else indent
    if isinstance(n, int) and n > _MAX_INDENT:
        raise TemplateTooCostly(f"JSON indented by {n} spaces")


def _refuse(_meter: Meter, _value: object, *_: object, **__: object) -> None:
    raise TemplateTooCostly("a method that chat templates have no use for")


def _expandtabs(meter: Meter, value: object, tabsize: object = 8, *_: object) -> None:
    if isinstance(tabsize, int) and isinstance(value, (str, bytes)):
        n_tabs = value.count("\t") if isinstance(value, str) else value.count(b"\t")
        meter.allow(len(value) + n_tabs * max(0, tabsize))


FILTER_GUARDS: dict[str, Guard] = {
    "batch": _count,
    "center": _width,
    "float": _number_text,
    "format": _format_filter,
    "indent": _indent,
    "int": _number_text,
    "join": _join_filter,
    "list": _list,
    "replace": _replace,
    "round": _precision,
    "slice": _count,
    "tojson": _tojson,
}

# Methods of str, bytes and int. bytes do not occur in chat templates except by ``encode``.
METHOD_GUARDS: dict[str, Guard] = {
    "center": _width,
    "expandtabs": _expandtabs,
    "hex": _refuse,
    "join": _join_method,
    "ljust": _width,
    "replace": _replace,
    "rjust": _width,
    "to_bytes": _refuse,
    "translate": _refuse,
    "zfill": _width,
}


def check_method(
    meter: Meter, method: Any, args: tuple[object, ...], kwargs: dict[str, object]
) -> None:
    """Guard a call of a built-in method that the template took from a value."""
    owner = getattr(method, "__self__", None)
    if isinstance(owner, (str, bytes, int)):
        guard = METHOD_GUARDS.get(method.__name__)
        if guard is not None:
            if kwargs.keys() - {"_loop_vars", "_block_vars"}:
                args = (*args, *kwargs.values())
            guard(meter, owner, *args)
