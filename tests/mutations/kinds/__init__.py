"""Every kind of damage; importing this fills `tests.mutations.kind.KINDS`."""

from tests.mutations.kinds import clean, content, encoding, files, geometry, headers, identity, pixels, values

__all__ = ["clean", "content", "encoding", "files", "geometry", "headers", "identity", "pixels", "values"]
