"""The mathematics: objectives (EDM, flow matching), conditions and how they are dropped, sampling, the frozen encoders.

Files: ``objective``, ``conditioning``, ``sample``, ``encoders``. Nothing is imported here: each is heavy by itself.
"""

__all__ = ["conditioning", "encoders", "objective", "sample"]
