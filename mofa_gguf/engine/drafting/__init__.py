"""Tokens guessed ahead for running sequences, by a draft model or from their own text."""
