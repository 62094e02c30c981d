"""From the contract's requests to the engine's."""

from __future__ import annotations

from collections.abc import Sequence

from mofa_gguf.contract import (
    AudioPart,
    ChatCompletionRequest,
    ChatMessage,
    ConfigError,
    ImagePart,
    ProviderNotSupported,
    VideoPart,
)
from mofa_gguf.engine.requests.generation import Generation
from mofa_gguf.engine.requests.request import GenerationRequest
from mofa_gguf.provider.description import Abilities
from mofa_gguf.provider.loaded import LoadedModel, Prompt
from mofa_gguf.provider.parameters import Parameters, sampling_options
from mofa_gguf.provider.structure import MakeConstraint, answer_constraint, text_constraint
from mofa_gguf.provider.tool_choice import check_tool_choice, offered_tools


def render_prompt(
    model: LoadedModel, request: ChatCompletionRequest, parameters: Parameters
) -> Prompt:
    """The request's conversation through the model's template. Raises ConfigError without one."""
    if not request.messages:
        raise ConfigError("messages is empty; send at least one message", field="messages")
    arguments = parameters.template_arguments(model.template.variables)
    return model.prompt(request.messages, offered_tools(request), arguments)


def submit(
    model: LoadedModel,
    request: ChatCompletionRequest,
    parameters: Parameters,
    prompt: Prompt,
) -> Sequence[Generation]:
    """Queue as many answers as the request wants; all or none."""
    generations: list[Generation] = []
    if prompt.raw:
        constraint = text_constraint(model, request, parameters)
    else:
        constraint = answer_constraint(model, request, parameters, prompt)
    try:
        for choice in range(parameters.n):
            generations.append(
                model.engine.submit(
                    _generation_request(model, parameters, prompt, choice, constraint)
                )
            )
    except BaseException:
        for generation in generations:
            generation.cancel()
        raise
    return generations


def _generation_request(
    model: LoadedModel,
    parameters: Parameters,
    prompt: Prompt,
    choice: int,
    constraint: MakeConstraint | None,
) -> GenerationRequest:
    config = model.config
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
        constraint=constraint,
        visible_control=frozenset() if prompt.raw else model.template.markers,
        priority=parameters.precedence,
        deadline_s=parameters.timeout_s or config.timeout_s,
        speculation=parameters.speculation,
    )


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
    _check_parts(request.messages)


_SENSES = {ImagePart: ("image", "eyes"), AudioPart: ("audio", "ears"), VideoPart: ("video", "eyes")}


def _check_parts(messages: Sequence[ChatMessage]) -> None:
    """Refuse what is no text: a template may have a place for an image, the model has no eyes."""
    for message in messages:
        for part in message.content if isinstance(message.content, list) else ():
            kind, sense = _SENSES.get(type(part), ("", ""))
            if kind:
                raise ProviderNotSupported(
                    f"a message of the {message.role} carries {kind} content and the model has no "
                    f"{sense}; send text",
                    provider="gguf",
                )
