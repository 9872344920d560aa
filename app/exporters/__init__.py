"""Offline converters: from the files a training framework leaves to a Triton model folder.

torch is imported here and nowhere else, and only inside the functions that need it: the server itself
runs without it.
"""
