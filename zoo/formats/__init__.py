"""Training and the zoo agree here on the format of a model's files.

Nothing here imports the rest of the zoo, nor torch at first.

``clip_folders``: CLIP's two encoders. ``components``: models and tokenizers, loaded whole or refused. ``configs``:
``config.json``. ``hashes``: SHA-256, read once. ``lock``: sizes and hashes of a folder's files. ``safetensors_info``:
parameters and bytes, from headers alone. ``scheduler``: the noise schedule. ``time_ids``: the numbers a model is given
beside its context (needs torch).
"""

__all__ = [
    "clip_folders",
    "components",
    "configs",
    "hashes",
    "lock",
    "references",
    "safetensors_info",
    "scheduler",
    "time_ids",
]
