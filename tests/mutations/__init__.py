"""Kinds of damage to real series, what truth says must become of each, and what readers make of them.

`kinds` damages, `judge` reads and compares, `sdk` does the same with the MONAI Deploy SDK, `render` writes
docs/reference/damaged-input.md.
"""
