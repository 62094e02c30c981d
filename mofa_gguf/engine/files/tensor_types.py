"""ggml's tensor types: number, name, elements a block, bytes a block.

Source: ``ggml_type`` and ``type_traits`` in ggml (ggml/include/ggml.h, ggml/src/ggml.c). A test
holds the table against the library that is installed.
"""

from __future__ import annotations

from typing import NamedTuple


class TensorType(NamedTuple):
    """How a tensor's elements lie in memory."""

    id: int
    name: str
    block_size: int
    """Elements a block; the length of a row is a multiple of it."""
    n_block_bytes: int

    def row_bytes(self, n_elements: int) -> int:
        """Bytes of ``n_elements``, which must be whole blocks (ValueError otherwise)."""
        if n_elements % self.block_size:
            raise ValueError(
                f"{n_elements} elements are no whole blocks of {self.block_size} for {self.name}"
            )
        return n_elements // self.block_size * self.n_block_bytes


_ROWS = (
    (0, "F32", 1, 4),
    (1, "F16", 1, 2),
    (2, "Q4_0", 32, 18),
    (3, "Q4_1", 32, 20),
    (6, "Q5_0", 32, 22),
    (7, "Q5_1", 32, 24),
    (8, "Q8_0", 32, 34),
    (10, "Q2_K", 256, 84),
    (11, "Q3_K", 256, 110),
    (12, "Q4_K", 256, 144),
    (13, "Q5_K", 256, 176),
    (14, "Q6_K", 256, 210),
    (16, "IQ2_XXS", 256, 66),
    (17, "IQ2_XS", 256, 74),
    (18, "IQ3_XXS", 256, 98),
    (19, "IQ1_S", 256, 50),
    (20, "IQ4_NL", 32, 18),
    (21, "IQ3_S", 256, 110),
    (22, "IQ2_S", 256, 82),
    (23, "IQ4_XS", 256, 136),
    (24, "I8", 1, 1),
    (25, "I16", 1, 2),
    (26, "I32", 1, 4),
    (27, "I64", 1, 8),
    (28, "F64", 1, 8),
    (29, "IQ1_M", 256, 56),
    (30, "BF16", 1, 2),
    (34, "TQ1_0", 256, 54),
    (35, "TQ2_0", 256, 66),
    (39, "MXFP4", 32, 17),
    (40, "NVFP4", 64, 36),
    (41, "Q1_0", 128, 18),
    (42, "Q2_0", 64, 18),
)

# Numbers that ggml once gave to types it has since dropped (ggml.h, enum ggml_type).
REMOVED_TYPES = {
    4: "Q4_2",
    5: "Q4_3",
    31: "Q4_0_4_4",
    32: "Q4_0_4_8",
    33: "Q4_0_8_8",
    36: "IQ4_NL_4_4",
    37: "IQ4_NL_4_8",
    38: "IQ4_NL_8_8",
}

TYPES_BY_ID: dict[int, TensorType] = {row[0]: TensorType(*row) for row in _ROWS}
TYPES_BY_NAME: dict[str, TensorType] = {t.name: t for t in TYPES_BY_ID.values()}
