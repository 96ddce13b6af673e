"""A captioner as another task of the loop: its recipe, pairs of clips and captions, models, measures, record and plan."""

__all__ = ["attributes", "cider", "measures", "models", "pairs", "plan", "recipe", "record", "starts", "task"]
