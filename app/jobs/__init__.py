"""Step 3, WORK: the durable tasks that turn a complete series into verified results."""
