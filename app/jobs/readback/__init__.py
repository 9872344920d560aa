"""What was written, read back: for each kind of object whether it says what was computed, and where."""
