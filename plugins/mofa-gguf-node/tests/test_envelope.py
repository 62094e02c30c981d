"""MoFA's envelope, as mofa-core writes and reads it."""

from __future__ import annotations

import json

import pytest
from mofa_gguf_node.envelope import read_text, read_texts, write_result

from mofa_gguf import SerializationError


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (["hello"], "hello"),
        ([b"hello"], "hello"),
        ([42], "42"),
        (['{"step_name": "a", "node_results": "hello", "dataflow_status": true}'], "hello"),
        (['{"node_results": {"a": 1}}'], '{"a": 1}'),
        (['{"a": 1}'], '{"a": 1}'),
        (['{"broken'], '{"broken'),
        (["[1, 2]"], "[1, 2]"),
        (["first", "second"], "first"),
    ],
)
def test_a_text_comes_out_of_its_envelope_if_it_is_in_one(values: list[object], text: str) -> None:
    assert read_text(values) == text


@pytest.mark.parametrize("values", [[], [None], [{"a": 1}], [["a"]], [b"\xff\xfe"], [True]])
def test_what_is_no_text_is_refused(values: list[object]) -> None:
    with pytest.raises(SerializationError):
        read_text(values)
    with pytest.raises(SerializationError):
        read_texts(values)


@pytest.mark.parametrize(
    ("values", "texts"),
    [
        (["a"], ["a"]),
        (["a", "b"], ["a", "b"]),
        (['["a", "b"]'], ["a", "b"]),
        (['{"node_results": "[\\"a\\", \\"b\\"]"}'], ["a", "b"]),
        (["[broken"], ["[broken"]),
    ],
)
def test_texts_come_as_elements_or_as_a_json_list(values: list[object], texts: list[str]) -> None:
    assert read_texts(values) == texts


def test_a_list_of_other_things_is_refused() -> None:
    with pytest.raises(SerializationError, match="something else than texts"):
        read_texts(["[1, 2]"])


def test_a_result_is_written_as_mofa_core_writes_it() -> None:
    written = write_result("llm_result", 'Grüße, "MoFA"')
    assert json.loads(written) == {
        "step_name": "llm_result",
        "node_results": 'Grüße, "MoFA"',
        "dataflow_status": True,
    }
    core = pytest.importorskip(
        "mofa.agent_build.base.base_agent", reason="mofa-core is not installed"
    )
    assert written == core.create_agent_output("llm_result", 'Grüße, "MoFA"', True)
    assert core.load_node_result(written) == 'Grüße, "MoFA"'
