"""What people and viewers ask over HTTP: so far, the API that prompts a generalist interactively."""

PRELOAD = ("app.web.session_child",)
"""What the sessions' processes begin with."""
