"""The engine's step on its own thread: batches through the context, and what is told of them."""
