"""Step 4, RETURN: bring each result to each destination."""
