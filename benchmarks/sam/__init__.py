"""LiteMedSAM's own way in torch beside Limner: the same slices, the same boxes, the same weights, one machine, one run.

``python -m benchmarks.sam --help``; docs/reference/performance-sam.md says what is measured and how, and has the last
figures. Every system works in processes of its own (`benchmarks.sam.reference` in the exporter environment,
`benchmarks.sam.limner`), which wait for the driver's word before each round (`benchmarks.worker`).
"""
