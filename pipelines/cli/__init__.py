"""The command line: parse, call, print. ``main.main`` is its entry; a file of commands or of tables for each topic."""

__all__ = ["main"]
