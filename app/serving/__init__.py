"""The Triton and the PostgreSQL that come with the server."""
