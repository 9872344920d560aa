"""What several hosts share through S3-compatible storage."""

PART_SUFFIX = ".part"
"""Ends the name of a file that is being fetched."""
