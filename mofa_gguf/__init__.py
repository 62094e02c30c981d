"""A local language model inside a MoFA agent's own process."""
