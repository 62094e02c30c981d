"""What the first Mamba's families share: the mixer's tensors, and the keys of what has no heads."""

from __future__ import annotations

from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.decoder import Decoder
from mofa_gguf.convert.families.parts import decay, linear, matrix, without_channels
from mofa_gguf.convert.metadata import Metadata


def selective_mixer(mixer: str, *norms: Rule) -> tuple[Rule, ...]:
    """Selective state spaces under the name ``mixer``; ``norms`` are those of step, B and C."""
    return (
        matrix(f"{mixer}.in_proj", "blk.{i}.ssm_in", "inner_twice", "embd"),
        Rule(
            f"{mixer}.conv1d.weight",
            "blk.{i}.ssm_conv1d.weight",
            ("inner", "one", "kernel"),
            without_channels,
        ),
        Rule(f"{mixer}.conv1d.bias", "blk.{i}.ssm_conv1d.bias", ("inner",)),
        matrix(f"{mixer}.x_proj", "blk.{i}.ssm_x", "step_and_states", "inner"),
        *norms,
        *linear(f"{mixer}.dt_proj", "blk.{i}.ssm_dt", "inner", "step"),
        Rule(f"{mixer}.A_log", "blk.{i}.ssm_a", ("inner", "state"), decay),
        Rule(f"{mixer}.D", "blk.{i}.ssm_d", ("inner",)),
        matrix(f"{mixer}.out_proj", "blk.{i}.ssm_out", "embd", "inner"),
    )


def write_without_heads(family: Decoder, metadata: Metadata, dimensions: Dimensions) -> None:
    """The keys that every decoder has, for one that neither attends nor feeds forward."""
    metadata.uint32(family.key("block_count"), dimensions["layers"])
    # No length is too long; the number is the one of llama.cpp's own converter.
    metadata.uint32(family.key("context_length"), 2**20)
    metadata.uint32(family.key("embedding_length"), dimensions["embd"])
    metadata.uint32(family.key("feed_forward_length"), 0)
    metadata.uint32(family.key("attention.head_count"), 0)
    epsilon = family.config.number(*family.epsilon_names, default=family.default_epsilon, minimum=0)
    metadata.float32(family.key("attention.layer_norm_rms_epsilon"), epsilon)
