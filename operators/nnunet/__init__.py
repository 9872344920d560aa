"""nnU-Net v2's inference: preprocessing, tiles over an inference server, and the way back. No torch."""

from operators.nnunet.segmentation import segment_volume

__all__ = ["segment_volume"]
