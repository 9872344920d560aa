"""From checkpoints of the SAM family to two Triton models, an encoder and a decoder, found to compute alike.

A variant is data, a file of ``app/exporters/sam_variants``: the architecture, and the contract by which it is asked.
"""
