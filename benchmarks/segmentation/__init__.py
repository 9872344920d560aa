"""Limner's Segmentations beside those of dcmqi's itkimage2segimage: `make bench-segmentation`."""
