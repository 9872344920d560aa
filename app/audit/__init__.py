"""ALWAYS: the append-only, hash-chained record of what happened."""
