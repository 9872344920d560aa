"""Measurements of Limner beside what it must not be slower than; programs for people, and `make bench-…`."""
