"""The server: what happens to a study, in the order of its way."""
