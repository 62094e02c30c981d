"""Benchmarks against the peers, run by hand: two roads in one run, alternated, as a ratio."""
