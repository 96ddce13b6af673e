"""Zoo: models that people list, download and run. The catalogue lands with the next release."""
