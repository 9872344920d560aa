"""Tests that hold our arithmetic against that of nnU-Net and of SAM's family, called in the same process.

Run with the exporter environment's python: ``make test-oracle``. The server's environment has neither, so that
plain ``pytest`` leaves this folder out.
"""
