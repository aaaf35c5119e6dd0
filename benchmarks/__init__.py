"""Timings of this project beside a named peer; each writes its figures to `benchmarks/results`."""
