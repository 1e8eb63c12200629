"""Training on several devices: a process for each, a rank, that all do the same steps on shares of each batch."""
