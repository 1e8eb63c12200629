"""The pages that a run leaves behind: report, model card, charts."""
