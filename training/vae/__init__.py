"""The temporal VAE decoder as another task of the loop: its recipe, windows of clips, loss, figures, record and plan."""

__all__ = ["objective", "plan", "recipe", "record", "task", "windows"]
