"""Benchmarks: Moim beside its peers in the same run, cost per unit of work rather than wall time."""
