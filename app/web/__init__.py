"""What people and viewers ask over HTTP: so far, the API that prompts a generalist interactively."""
