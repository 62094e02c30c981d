"""A model's weights in memory, its contexts and adapters."""
