"""What templates may do, what they may not, and what they may cost."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from mofa_gguf.chat import (
    ChatTemplate,
    RenderLimits,
    TemplateError,
    TemplateFailed,
    TemplateSyntax,
    TemplateTooCostly,
)

Make = Callable[[str], ChatTemplate]

HELLO = [{"role": "user", "content": "hello"}]
GROW = "{% set ns = namespace(x=START) %}{% for i in range(60) %}{% set ns.x = NEXT %}{% endfor %}"


def grow(start: str, step: str) -> str:
    return GROW.replace("START", start).replace("NEXT", step) + "{{ ns.x }}"


@pytest.mark.parametrize(
    ("source", "rendered"),
    [
        ("a\n  {% if true %}\n  b\n  {% endif %}\nc", "a\n  b\nc"),
        ("{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}", "012"),
        (
            "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        ("{% generation %}{% set a = 1 %}x{{ a }}{% endgeneration %}{{ a is defined }}", "x1False"),
        ("{{ strftime_now('%d %b %Y') }}", "04 Jul 2025"),
        ("{{ {'b': '<é>', 'a': 1} | tojson }}", '{"b": "<é>", "a": 1}'),
        (
            "{{ {'b': 2, 'a': 'é'} | tojson(ensure_ascii=true, sort_keys=true) }}",
            '{"a": "\\u00e9", "b": 2}',
        ),
        ("{{ [1] | tojson(indent=2) }}", "[\n  1\n]"),
        ("{{ {'a': [1, 2]} | tojson(separators=(',', ':')) }}", '{"a":[1,2]}'),
        ("{{ documents is none }} {{ tools is none }}", "True True"),
        ("{{ bos_token }}{{ messages[0]['content'] }}{{ eos_token }}", "<s>hello</s>"),
        ("{% set ns = namespace(n=0) %}{% set ns.n = ns.n + 1 %}{{ ns.n }}", "1"),
        ("{{ dict(a=1).a }}{{ dict.fromkeys('ab').keys() | list }}", "1['a', 'b']"),
        ("{{ 'a' ~ 1 ~ none }}{{ 'ab'[::-1] }}{{ 'x' * 3 }}", "a1Nonebaxxx"),
        ("{{ '%s-%05.1f' % ('a', 2) }}{{ '{:>4}{}'.format(1, 'b') }}", "a-002.0   1b"),
        (
            "{{ ['a', 'b'] | join(', ') }}{{ 'a-b'.split('-') | map('upper') | list }}",
            "a, b['A', 'B']",
        ),
        ("{{ [1, 2] | sum }}{{ [{'n': 2}, {'n': 3}] | sum(attribute='n') }}", "35"),
        ("{% macro m(x) %}[{{ x }}]{% endmacro %}{{ m('y') }}{{ missing }}", "[y]"),
        (
            "{% set x %}a{% for i in range(2) %}{{ i }}{% endfor %}{% endset %}{{ x | upper }}",
            "A01",
        ),
        ("{% for k, v in {'a': 1} | items %}{{ k }}{{ v }}{{ loop.last }}{% endfor %}", "a1True"),
        (
            "{{ 'a\\nb' | indent(2) }}|{{ 'ab' | replace('b', 'c') }}|{{ '7' | int + 1 }}",
            "a\n  b|ac|8",
        ),
    ],
)
def test_templates_can_do_what_hugging_face_templates_do(
    make: Make, source: str, rendered: str
) -> None:
    assert make(source).render(HELLO) == rendered


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__.__mro__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ ('' | attr('__class__')).mro() }}",
        "{{ '{0.__class__.__mro__}'.format('') | length }}{{ raise_exception.__globals__.os }}",
        "{{ namespace.__init__.__globals__['os'].system('true') }}",
        "{{ cycler.__init__.__globals__.os }}",
        "{% set ns = namespace() %}{% set ns.__class__ = 1 %}",
        "{{ namespace(__class__=1) }}",
        "{% set _ = messages.append(1) %}",
        "{% set _ = messages[0].update({'role': 'system'}) %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
    ],
)
def test_a_template_cannot_reach_out_of_the_sandbox(make: Make, source: str) -> None:
    with pytest.raises(TemplateFailed):
        make(source).render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% if n %}{{ f(n - 1) ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}",
        "{% for x in [60] recursive %}{% if x %}{{ loop([x - 1, x - 1]) }}{% endif %}{% endfor %}",
        "{% for i in range(99999) if range(99999) | sum > 10 ** 20 %}{% endfor %}",
        "{% for i in range(99999) %}{{ range(99999) | select('odd') | list | length }}{% endfor %}",
        "{% set a = range(99999) | list %}{% set b = range(99999) | list %}"
        + "{{ a == b }}" * 1500,
        "{% set a = 'a' * 999999 %}{% set b = 'a' * 499999 ~ 'b' %}" + "{{ b in a }}" * 1500,
        "{{ ([[1]] * 40000) | sum(start=[]) | length }}",
        "{% for a in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
        "{% set x %}{% for a in range(99999) %}" + "x" * 9999 + "{% endfor %}{% endset %}",
        grow("'a'", "ns.x + ns.x"),
        grow("'a'", "ns.x ~ ns.x"),
        grow("'a'", "'{0}{0}'.format(ns.x)"),
        grow("'a'", "'%(x)s%(x)s' % {'x': ns.x}"),
        grow("[1]", "ns.x + ns.x"),
        grow("[1]", "[ns.x, ns.x]"),
        grow("{}", "{'a': ns.x, 'b': ns.x}"),
        grow("{}", "dict(a=ns.x, b=ns.x)"),
        grow("10", "ns.x * ns.x"),
        "{{ 'a' * 10 ** 10 }}",
        "{{ [1] * 10 ** 10 }}",
        "{{ (10 ** 1000) ** 1000 }}",
        "{{ 'a' | center(10 ** 10) }}",
        "{{ 'a'.ljust(10 ** 10) }}",
        "{{ '1'.zfill(10 ** 10) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{w}}'.format(1, w=10 ** 9) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%*d' % (10 ** 9, 1) }}",
        "{{ ('a' * 999999) | replace('a', 'b' * 999999) }}",
        "{{ ('a' * 999999).replace('', 'b' * 999999) }}",
        "{{ range(99999) | join('x' * 999999) }}",
        "{{ ('x' * 999999).join(range(999) | map('string')) }}",
        "{{ ('a' * 999999).translate({97: 'x' * 999999}) }}",
        "{{ [1] | batch(10 ** 9, 0) | list }}",
        "{{ [1] | slice(10 ** 9) | list }}",
        "{{ ('\\n' * 999999) | indent(999999) }}",
        "{{ [[[1]]] | tojson(indent=10 ** 9) }}",
        "{{ range(50000) | list | tojson(separators=('x' * 99999, ':')) }}",
        "{{ 1.5 | round(10 ** 9, 'ceil') }}",
        "{{ ('a ' * 900000) | urlize }}",
        "{{ ('<!--' * 400000) | striptags }}",
        "{{ ('9' * 999999) | int }}",
        "{{ strftime_now('%Y' * 9999999) }}",
        "{{ (1).to_bytes(10 ** 10, 'big') }}",
    ],
)
def test_a_template_that_costs_too_much_is_stopped(make: Make, source: str) -> None:
    begin = time.thread_time()
    with pytest.raises(TemplateTooCostly):
        make(source).render(HELLO)
    assert time.thread_time() - begin < 1.5


def test_endless_recursion_is_an_error_and_no_crash(make: Make) -> None:
    with pytest.raises(TemplateFailed, match="without end"):
        make("{% macro f(n) %}{{ f(n + 1) }}{% endmacro %}{{ f(0) }}").render(HELLO)


@pytest.mark.parametrize(
    "source",
    [
        "{% if %}",
        "{% for m in messages %}",
        "{{ messages | no_such_filter }}",
        "{% unknown %}",
        "{{ " + "(" * 9999 + "1" + ")" * 9999 + " }}",
        "{{ " + " + ".join(["1"] * 9999) + " }}",
        "{% for a in b %}" * 99 + "{% endfor %}" * 99,
        "{% if a %}" * 3000 + "{% endif %}" * 3000,
        "{{ " + "9" * 9999 + " }}",
        "{#" * 9999,
        "x" * 10_000_000,
    ],
)
def test_a_broken_template_is_refused_when_it_is_compiled(make: Make, source: str) -> None:
    begin = time.thread_time()
    with pytest.raises(TemplateSyntax):
        make(source)
    assert time.thread_time() - begin < 1.5


def test_a_syntax_error_names_its_line(make: Make) -> None:
    with pytest.raises(TemplateSyntax) as caught:
        make("fine\n{% if %}\n")
    assert caught.value.line == 2


def test_a_failure_names_its_line(make: Make) -> None:
    with pytest.raises(TemplateFailed) as caught:
        make("fine\n\n{{ 1 / 0 }}").render(HELLO)
    assert caught.value.line == 3
    assert "division by zero" in str(caught.value)


def test_hostile_probes_do_not_cost_more_than_one_rendering(make: Make) -> None:
    template = make(
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
    )
    begin = time.thread_time()
    with pytest.raises(TemplateTooCostly):
        _ = template.capabilities
    assert time.thread_time() - begin < 1.5


def test_deeply_nested_messages_are_an_error_and_no_crash(make: Make) -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(TemplateError, match="nested too deeply"):
        make("{{ messages }}").render([{"role": "user", "content": deep}])


def test_a_cyclic_message_is_an_error(make: Make) -> None:
    message: dict[str, object] = {"role": "user", "content": "x"}
    message["metadata"] = message
    with pytest.raises(TemplateError, match="nested too deeply"):
        make("{{ messages }}").render([message])


def test_long_conversations_are_within_the_limits(make: Make) -> None:
    template = make("{% for m in messages %}{{ m.role + ': ' + m.content + '\\n' }}{% endfor %}")
    messages = [{"role": "user", "content": "word " * 2000}] * 500
    assert len(template.render(messages)) == 500 * (10_000 + 7)


def test_limits_can_be_set() -> None:
    template = ChatTemplate("{{ 'x' * 2000 }}", limits=RenderLimits(value_chars=1000))
    with pytest.raises(TemplateTooCostly):
        template.render(HELLO)


def test_templates_see_plain_data_only(make: Make) -> None:
    class Danger:
        def method(self) -> str:
            raise AssertionError("a template called a method of a caller's object")

    template = make("{{ messages[0].content }}{{ messages[0].content.method() }}")
    with pytest.raises(TemplateFailed):
        template.render([{"role": "user", "content": Danger()}])
    shown = make("{{ messages[0].content }}").render([{"role": "user", "content": Danger()}])
    assert shown == "<Danger>"


def test_one_template_renders_in_many_threads_at_once(make: Make) -> None:
    template = make("{% for i in range(200) %}{{ messages[0].content ~ i }}{% endfor %}")
    barrier = threading.Barrier(4)

    def render(name: str) -> bool:
        barrier.wait()
        expected = "".join(f"{name}{i}" for i in range(200))
        return all(
            template.render([{"role": "user", "content": name}]) == expected for _ in range(20)
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(render, "abcd"))
