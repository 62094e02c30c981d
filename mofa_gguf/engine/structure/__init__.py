"""Constrained output: schemas and grammars as token masks, answers in stages."""
