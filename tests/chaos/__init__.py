"""What dies, hangs, fills up or is cut off, and what is lost by it: one file a promise, each with its figures.

`make test-chaos` runs the long form and keeps the table in docs/reference/chaos.md; `make test` runs the short form.
"""
