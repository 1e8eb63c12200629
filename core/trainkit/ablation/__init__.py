"""What each part of a run contributes: what is taken out, the runs without it, and their table."""
