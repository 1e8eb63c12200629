"""Cross-validation: who is in which fold, the runs of all folds, and what they say together."""
