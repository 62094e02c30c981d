"""Which tokens the next step computes. Knows nothing of llama.cpp."""
