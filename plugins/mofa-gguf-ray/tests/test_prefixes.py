"""The beginnings of prompts: equal where the prompts are, and nowhere else."""

from __future__ import annotations

from mofa_gguf_ray.prefixes import BLOCK_CHARS, MAX_PREFIXES, prefixes_of, prefixes_of_text

from mofa_gguf.contract import ChatCompletionRequest, ChatMessage, Tool

SYSTEM = ChatCompletionRequest.new().system("You are helpful. " * 100)


def in_common(one: ChatCompletionRequest, other: ChatCompletionRequest) -> int:
    """How many characters two requests have in common, as their prefixes say."""
    keys = {prefix.key for prefix in prefixes_of(other)}
    return max((p.n_chars for p in prefixes_of(one) if p.key in keys), default=0)


def test_a_common_system_prompt_is_a_common_prefix() -> None:
    one, other = SYSTEM.user_message("What is MoFA?"), SYSTEM.user_message("Hello!")
    assert in_common(one, other) == prefixes_of(SYSTEM)[-1].n_chars >= 1700


def test_a_conversation_goes_on_from_its_own_prefix() -> None:
    first = SYSTEM.user_message("What is MoFA?")
    later = first.message(ChatMessage.assistant("A framework.")).user_message("Thanks!")
    assert in_common(first, later) == prefixes_of(first)[-1].n_chars
    assert prefixes_of(later)[: len(prefixes_of(first))] == prefixes_of(first)


def test_texts_that_differ_late_in_a_message_have_its_beginning_in_common() -> None:
    document = "x" * (4 * BLOCK_CHARS)
    one = ChatCompletionRequest.new().user_message(document + "first question")
    other = ChatCompletionRequest.new().user_message(document + "second question")
    assert in_common(one, other) >= 3 * BLOCK_CHARS


def test_whatever_differs_at_the_beginning_leaves_nothing_in_common() -> None:
    tool = Tool.function("get_weather", "The weather", {"type": "object"})
    others = [
        ChatCompletionRequest.new("other").system("You are helpful. " * 100),
        SYSTEM.tool(tool),
        ChatCompletionRequest.new().user_message("You are helpful. " * 100),
        ChatCompletionRequest.new().system("you are helpful. " * 100),
    ]
    assert [in_common(SYSTEM, other) for other in others] == [0, 0, 0, 0]


def test_where_a_message_ends_is_part_of_the_prefix() -> None:
    one = ChatCompletionRequest.new().user_message("ab").user_message("c")
    other = ChatCompletionRequest.new().user_message("a").user_message("bc")
    assert in_common(one, other) == 0


def test_what_is_sampled_with_is_no_part_of_it() -> None:
    assert prefixes_of(SYSTEM.with_temperature(0).with_max_tokens(3)) == prefixes_of(SYSTEM)


def test_prefixes_grow_and_are_bounded_in_number() -> None:
    long = prefixes_of_text("", "y" * (2 * MAX_PREFIXES * BLOCK_CHARS))
    assert len(long) == MAX_PREFIXES
    assert [p.n_chars for p in long] == sorted({p.n_chars for p in long})


def test_text_that_is_no_unicode_has_prefixes_too() -> None:
    assert prefixes_of(ChatCompletionRequest.new().user_message("\ud800"))
