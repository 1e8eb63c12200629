"""Run the command line as `python -m trainkit_cli`."""

from __future__ import annotations

from .main import main

main()
