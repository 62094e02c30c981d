"""What a provider says of a model."""

from __future__ import annotations

from pydantic import Field, StrictBool

from mofa_gguf.contract.base import U32, ContractModel


class ModelCapabilities(ContractModel):
    """What a model can do; everything is False until the provider knows better."""

    streaming: StrictBool = False
    tools: StrictBool = False
    vision: StrictBool = False
    json_mode: StrictBool = False
    json_schema: StrictBool = False


class ModelInfo(ContractModel):
    """A model's name, limits (in tokens) and capabilities."""

    id: str
    name: str
    description: str | None = None
    context_window: U32 | None = None
    max_output_tokens: U32 | None = None
    training_cutoff: str | None = None
    capabilities: ModelCapabilities = Field(default_factory=ModelCapabilities)
