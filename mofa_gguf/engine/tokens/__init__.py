"""A model's vocabulary: text to tokens as its own tokenizer does it, and tokens to text."""
