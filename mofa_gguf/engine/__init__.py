"""llama.cpp in process: the only room that calls its C API."""
