"""Rerankers: encoders with one output that says how well a document answers a query.

llama.cpp: src/models/bert.cpp and the pooling by rank in src/llama-graph.cpp, a dense layer with
tanh and a matrix with one row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from mofa_gguf.convert.families import register
from mofa_gguf.convert.families.base import Dimensions, Rule
from mofa_gguf.convert.families.bert import Bert
from mofa_gguf.convert.families.roberta import Roberta
from mofa_gguf.convert.metadata import Metadata

_RANK = 4  # llama.h, LLAMA_POOLING_TYPE_RANK


def _head(dense: str, output: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{dense}.weight", "cls.weight", ("embd", "embd")),
        Rule(f"{dense}.bias", "cls.bias", ("embd",)),
        Rule(f"{output}.weight", "cls.output.weight", ("labels", "embd")),
        Rule(f"{output}.bias", "cls.output.bias", ("labels",)),
    )


@register("BertForSequenceClassification")
class BertReranker(Bert):
    """BERT with its pooler and a classifier."""

    rules = (*Bert.rules, *_head("pooler.dense", "classifier"))
    skip: ClassVar[Mapping[str, str]] = {
        name: reason for name, reason in Bert.skip.items() if name != "pooler.*"
    }

    def dimensions(self) -> Dimensions:
        """BERT's, and the number of outputs, which must be one."""
        labels = self.config.section("id2label")
        if labels is None or "0" not in labels or "1" in labels:
            raise self.config.fail(
                "id2label", "must name one label: a reranker has one output, others are not run"
            )
        dimensions = super().dimensions()
        if dimensions["types"] != 1:
            raise self.config.fail(
                "type_vocab_size",
                "must be 1: llama.cpp cannot tell the query's tokens from the document's by type",
            )
        return {**dimensions, "labels": 1}

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """BERT's keys, and that the head pools."""
        super().hyperparameters(metadata, dimensions)
        metadata.uint32(self.key("pooling_type"), _RANK)


@register(
    "RobertaForSequenceClassification",
    "XLMRobertaForSequenceClassification",
    "CamembertForSequenceClassification",
)
class RobertaReranker(BertReranker, Roberta):
    """RoBERTa with its classification head: BGE's rerankers and their kind."""

    rules = (*Roberta.rules, *_head("classifier.dense", "classifier.out_proj"))
    skip = Roberta.skip

    def hyperparameters(self, metadata: Metadata, dimensions: Dimensions) -> None:
        """RoBERTa's keys, and its second separator between two texts."""
        super().hyperparameters(metadata, dimensions)
        metadata.boolean("tokenizer.ggml.add_sep_token", True)
