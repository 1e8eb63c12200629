"""The command line of trainkit: one module per command, each imported only when it is called."""
