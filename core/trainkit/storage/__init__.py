"""How a run lies on the disk: tensor files, state trees, strict JSON, and the commit of a checkpoint."""
