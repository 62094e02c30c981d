"""A plain Llama in torch, as small as it gets, and its export to a checkpoint folder.

Architecture after Touvron et al., "LLaMA: Open and Efficient Foundation Language Models" (2023),
with grouped-query attention; parameter names are those of transformers' LlamaForCausalLM.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

Cache = list[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class ModelShape:
    """The sizes of the model, by their names in config.json."""

    vocab_size: int
    hidden_size: int = 256
    intermediate_size: int = 688
    num_hidden_layers: int = 5
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    head_dim: int = 64
    max_position_embeddings: int = 1024
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-5


class RMSNorm(nn.Module):
    """Root mean square normalisation with a learned scale."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(x.dtype), self.eps)


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention of [batch, heads, length, size] queries on fewer key and value heads.

    The queries of a group are laid end to end, so that keys are never repeated: on a CPU this is
    several times faster than the fused kernel for dialogues of this length.
    """
    batch, heads, length, size = q.shape
    groups = k.shape[1]
    scores = (q * size**-0.5).reshape(batch, groups, -1, size) @ k.transpose(-1, -2)
    if length > 1:
        future = torch.full((length, k.shape[2]), float("-inf"), dtype=q.dtype, device=q.device)
        scores = scores + future.triu(k.shape[2] - length + 1).repeat(heads // groups, 1)
    return (scores.softmax(-1) @ v).view(batch, heads, length, size)


class Attention(nn.Module):
    """Grouped-query causal attention with rotary positions."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.head_dim = shape.head_dim
        hidden = shape.hidden_size
        self.q_proj = nn.Linear(hidden, shape.num_attention_heads * shape.head_dim, bias=False)
        self.k_proj = nn.Linear(hidden, shape.num_key_value_heads * shape.head_dim, bias=False)
        self.v_proj = nn.Linear(hidden, shape.num_key_value_heads * shape.head_dim, bias=False)
        self.o_proj = nn.Linear(shape.num_attention_heads * shape.head_dim, hidden, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        batch, length, _ = x.shape
        q, k, v = (
            proj(x).view(batch, length, -1, self.head_dim).transpose(1, 2)
            for proj in (self.q_proj, self.k_proj, self.v_proj)
        )
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if past is not None:
            k, v = torch.cat((past[0], k), dim=2), torch.cat((past[1], v), dim=2)
        out = _attend(q, k, v)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1)), (k, v)


class MLP(nn.Module):
    """The gated feed-forward block (SwiGLU)."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class Layer(nn.Module):
    """One transformer layer."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        self.mlp = MLP(shape)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        attended, present = self.self_attn(self.input_layernorm(x), cos, sin, past)
        x = x + attended
        return x + self.mlp(self.post_attention_layernorm(x)), present


class DemoModel(nn.Module):
    """The decoder with tied embeddings."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = RMSNorm(shape.hidden_size, shape.rms_norm_eps)
        inverse = shape.rope_theta ** (-torch.arange(0, shape.head_dim, 2).float() / shape.head_dim)
        angles = torch.outer(torch.arange(shape.max_position_embeddings).float(), inverse)
        angles = torch.cat((angles, angles), dim=-1)
        self.register_buffer("cos", angles.cos(), persistent=False)
        self.register_buffer("sin", angles.sin(), persistent=False)
        self._initialise()

    def _initialise(self) -> None:
        deep = 1 / math.sqrt(2 * self.shape.num_hidden_layers)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                wide = 0.02 if "embed" in name else parameter.shape[1] ** -0.5
                scale = deep if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
                nn.init.normal_(parameter, std=wide * scale)

    def hidden(self, ids: Tensor, past: Cache | None = None) -> tuple[Tensor, Cache]:
        """The normalised last hidden states [batch, length, hidden] and the new cache."""
        start = past[0][0].shape[2] if past else 0
        x = self.embed_tokens(ids)
        if torch.is_autocast_enabled("cpu"):
            x = x.to(torch.get_autocast_dtype("cpu"))
        cos = self.get_buffer("cos")[start : start + ids.shape[1]].to(x.dtype)
        sin = self.get_buffer("sin")[start : start + ids.shape[1]].to(x.dtype)
        presents: Cache = []
        for at, layer in enumerate(self.layers):
            x, present = layer(x, cos, sin, past[at] if past else None)
            presents.append(present)
        return self.norm(x), presents

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores of the next token from hidden states."""
        return F.linear(hidden, self.embed_tokens.weight.to(hidden.dtype))

    @property
    def n_parameters(self) -> int:
        """The number of trained numbers; the tied embedding counts once."""
        return sum(p.numel() for p in self.parameters())


def config_json(shape: ModelShape, eos_ids: list[int], pad_id: int) -> dict[str, Any]:
    """The model's config.json as transformers reads it."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        **asdict(shape),
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": eos_ids[0],
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "mlp_bias": False,
        "pad_token_id": pad_id,
        "rope_scaling": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
    }


def save_model(model: DemoModel, folder: Path, eos_ids: list[int], pad_id: int) -> None:
    """Write model.safetensors in bf16, config.json and generation_config.json."""
    from safetensors.torch import save_file

    tensors = {
        f"model.{name}": value.detach().to(torch.bfloat16).contiguous()
        for name, value in model.state_dict().items()
    }
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    generation = {"eos_token_id": eos_ids, "pad_token_id": pad_id, "do_sample": False}
    config = config_json(model.shape, eos_ids, pad_id)
    for name, content in (("config.json", config), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_model(folder: Path) -> DemoModel:
    """Read a checkpoint folder back, with the weights as they are stored (bf16 values)."""
    from safetensors.torch import load_file

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    shape = ModelShape(**{name: config[name] for name in ModelShape.__dataclass_fields__})
    model = DemoModel(shape)
    tensors = load_file(str(folder / "model.safetensors"))
    model.load_state_dict({k.removeprefix("model."): v.float() for k, v in tensors.items()})
    return model.eval()
