"""How plugins are looked at, imported, guarded and asked."""
