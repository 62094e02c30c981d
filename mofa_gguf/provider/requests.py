"""From the contract's requests to the engine's."""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.contract import (
    ChatCompletionRequest,
    ConfigError,
    EmbeddingRequest,
    ProviderNotSupported,
    Tool,
    ToolChoice,
)
from mofa_gguf.engine.constraint import Constraint
from mofa_gguf.engine.generation import Generation
from mofa_gguf.engine.request import GenerationRequest
from mofa_gguf.provider.description import Abilities
from mofa_gguf.provider.loaded import LoadedModel, Prompt
from mofa_gguf.provider.parameters import Parameters, sampling_options
from mofa_gguf.provider.tool_choice import call_constraint, check_tool_choice, forces_call


def render_prompt(
    model: LoadedModel, request: ChatCompletionRequest, parameters: Parameters
) -> Prompt:
    """The request's conversation through the model's template. Raises ConfigError without one."""
    if not request.messages:
        raise ConfigError("messages is empty; send at least one message", field="messages")
    return model.prompt(request.messages, offered_tools(request), parameters.template_arguments)


def submit(
    model: LoadedModel,
    request: ChatCompletionRequest,
    parameters: Parameters,
    prompt: Prompt,
) -> Sequence[Generation]:
    """Queue as many answers as the request wants; all or none."""
    generations: list[Generation] = []
    try:
        for choice in range(parameters.n):
            generations.append(
                model.engine.submit(_generation_request(model, request, parameters, prompt, choice))
            )
    except BaseException:
        for generation in generations:
            generation.cancel()
        raise
    return generations


def _generation_request(
    model: LoadedModel,
    request: ChatCompletionRequest,
    parameters: Parameters,
    prompt: Prompt,
    choice: int,
) -> GenerationRequest:
    config = model.config
    constraint = _constraint(model, request, prompt)
    return GenerationRequest(
        tokens=prompt.tokens,
        sampling=sampling_options(
            parameters,
            model.header.metadata,
            default_temperature=config.default_temperature,
            choice=choice,
        ),
        max_tokens=parameters.answer_limit or config.default_max_tokens,
        min_tokens=parameters.min_tokens,
        ignore_eos=parameters.ignore_eos,
        stop=parameters.stop or (),
        top_logprobs=parameters.n_top_logprobs,
        constraint=None if constraint is None else lambda: constraint,
        visible_control=model.template.markers,
        priority=parameters.priority,
        deadline_s=parameters.timeout_s or config.timeout_s,
    )


def offered_tools(request: ChatCompletionRequest) -> list[Tool] | None:
    """The tools the model is told of."""
    return None if request.tool_choice is ToolChoice.NONE else request.tools or None


def _constraint(
    model: LoadedModel, request: ChatCompletionRequest, prompt: Prompt
) -> Constraint | None:
    """What ``tool_choice`` or ``response_format`` asks for, compiled; None for free text."""
    if forces_call(request):
        return call_constraint(model, request, prompt)
    wanted = request.response_format
    if wanted is None or wanted.format_type == "text":
        return None
    if wanted.format_type == "json_object":
        return model.constraints.json_object()
    spec = wanted.schema_spec()
    assert spec is not None
    return model.constraints.json_schema(spec.schema)


def check_abilities(request: ChatCompletionRequest, abilities: Abilities) -> None:
    """Refuse what the model cannot do, before anything is computed."""
    if not abilities.chat:
        raise ProviderNotSupported(
            "this model only embeds text and cannot chat; use embedding(), or load a chat model",
            provider="gguf",
        )
    if offered_tools(request) and not abilities.tools:
        raise ProviderNotSupported(
            "the model's chat template has no place for tools; "
            "send the request without tools or load a model with tool support",
            provider="gguf",
        )
    check_tool_choice(request)
    constrained = request.response_format is not None and request.response_format.format_type
    if offered_tools(request) and constrained not in (False, "text"):
        raise ConfigError(
            "response_format and tools cannot be combined in one request; "
            "send one of them, or tool_choice 'none'",
            field="response_format",
        )


def check_embedding(request: EmbeddingRequest) -> None:
    if request.dimensions is not None:
        raise ConfigError(
            "dimensions cannot be chosen: a local model's vectors have the model's own length",
            field="dimensions",
        )
    if request.encoding_format not in (None, "float"):
        raise ConfigError(
            f"encoding_format {request.encoding_format!r} is not supported; use 'float'",
            field="encoding_format",
        )
