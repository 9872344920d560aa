"""Step 2, DECIDE: when a series is complete and which rule takes it."""
