"""How the bundled demo checkpoint is made: dialogues, tokenizer, model, training, scoring."""
