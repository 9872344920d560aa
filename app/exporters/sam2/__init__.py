"""SAM 2 as four ONNX graphs: encoder, decoder, and the two that remember. Runs in the exporter environment.

``networks.py`` builds the reference implementation's network of a variant, ``graphs.py`` and ``memory_graphs.py`` say
what of it each graph computes, ``exporting.py`` writes them and holds each against torch.
"""
