"""Zoo: models that people list, publish and run. Nothing heavy is imported with this package."""
