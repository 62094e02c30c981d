"""What is known of architectures and kinds of vocabulary, and which the checks cover through and
through.

Their code in llama.cpp was read for what it asserts, and the fuzz campaign (tools/fuzz_gguf.py)
goes over them. What other ones assert, only a load tells (:mod:`mofa_gguf.engine.files.probe`).
"""

from __future__ import annotations

ARCHITECTURES = frozenset({"llama", "qwen2", "qwen3", "gemma3", "phi3", "gpt2", "bert", "mamba"})
TOKENIZERS = frozenset({"llama", "gpt2", "bert", "t5", "rwkv"})
EVERY_LAYER_ATTENDS = ARCHITECTURES - {"mamba"}
EVERY_LAYER_ROTATES = ARCHITECTURES - {"mamba", "gpt2", "bert"}
# Their graphs assert that rope.dimension_count is the length of a head.
ROTATES_ITS_HEADS_WHOLE = frozenset(
    {
        *("apertus", "arcee", "arctic", "baichuan", "chameleon", "codeshell", "cogvlm", "dbrx"),
        *("cohere2moe", "deci", "deepseek", "dots1", "dream", "ernie4_5", "ernie4_5-moe", "exaone"),
        *(
            "exaone-moe",
            "exaone4",
            "falcon",
            "granite",
            "granitemoe",
            "granite_swa",
            "grok",
            "orion",
        ),
        *("grovemoe", "hunyuan-moe", "hunyuan_vl", "hunyuan-dense", "hy_v3", "internlm2", "jais2"),
        *(
            "llada",
            "llada-moe",
            "llama",
            "llama-embed",
            "llama4",
            "maincoder",
            "mellum",
            "mistral3",
        ),
        *("minimax-01", "olmo", "olmo2", "olmoe", "paddleocr", "pangu-embedded", "plamo", "qwen2"),
        *("qwen2moe", "qwen2vl", "qwen3", "qwen3moe", "qwen3vl", "qwen3vlmoe", "rnd1", "seed_oss"),
        *("smallthinker", "smollm3", "starcoder2", "talkie", "xverse"),
    }
)
# Their graphs assert that keys are as long as values.
HEADS_OF_ONE_LENGTH = ROTATES_ITS_HEADS_WHOLE | {
    *("afmoe", "bailingmoe2", "bert", "nomic-bert", "nomic-bert-moe", "jina-bert-v2", "bitnet"),
    *("jina-bert-v3", "bloom", "chatglm", "cohere2", "command-r", "eurobert", "glm4", "glm4moe"),
    *("gpt2", "gptneox", "jais", "modern-bert", "mpt", "nemotron", "neo-bert", "openelm", "phi2"),
    *("phi3", "phimoe", "qwen", "refact", "stablelm", "starcoder", "t5encoder", "minimax-m2"),
}
# Those that llama.cpp runs and the package gguf does not name yet.
NEWER = frozenset(
    {
        *("bailingmoe3", "cohere2moe", "deepseek32", "deepseek4", "dots3note", "glm5-next"),
        *("granite_swa", "graniteswitch", "hrm_text", "hy_v3", "hy_v4", "kimi-k3", "laguna"),
        *("maple", "mellum", "minimax-01", "minimax-m3", "muse-glimmer", "nanbeige", "qwen4exp"),
        *("spark2_5", "talkie"),
    }
)
# They have no attention at all.
RECURRENT = frozenset({"mamba", "mamba2", "rwkv6", "rwkv6qwen2", "rwkv7", "arwkv7"})
MAMBA = frozenset({"mamba", "mamba2"})
