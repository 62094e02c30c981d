"""The prefix cache: which sequence owns which cells, and cells outside of the KV cache."""
