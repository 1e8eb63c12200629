"""The learning-rate finder: the range test, the rate that it suggests, and how a run takes it."""
