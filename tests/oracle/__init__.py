"""Tests that hold our arithmetic against nnU-Net's own, called in the same process.

Run with the exporter environment's python: ``make test-oracle``. The server's environment has no nnU-Net, so that
plain ``pytest`` leaves this folder out.
"""
