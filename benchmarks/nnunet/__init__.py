"""nnU-Net's own predictor beside Limner: the same volumes, the same networks, one machine, one run.

``python -m benchmarks.nnunet --help``; docs/reference/performance.md says what is measured and how, and has the last
figures. Every system works on every case in processes of its own (`benchmarks.nnunet.reference` in the exporter
environment, `benchmarks.nnunet.limner`), which wait for the driver's word before each run (`benchmarks.worker`).
"""
