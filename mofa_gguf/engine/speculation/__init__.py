"""Whether guessing tokens ahead pays: plain functions and estimates, without a model."""
