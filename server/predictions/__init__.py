"""What was answered, kept: the prediction log, feedback on it, and what both say of a version."""
