"""GGUF files: reading the header, and every check in front of llama.cpp."""
