"""Step 1, RECEIVE: keep what a peer sends, durably, and answer."""
