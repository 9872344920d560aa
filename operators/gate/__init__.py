"""The gate before every model: whether a series is what its model is for, and in order; `gate.Gate` is the way in."""
