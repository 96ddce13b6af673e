"""Pipelines: the thin shell of Ray, recipes and the command line around ``curation``."""
