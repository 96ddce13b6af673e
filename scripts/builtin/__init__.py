"""Where the built-in models come from: they are trained on the rendered world, and so they know nothing else.

``frames`` renders what they see and writes what one frame can show; ``tokens`` makes the vocabulary; ``train_clip`` and
``train_coca`` train and save into ``zoo/builtin``. They stand here and not in ``zoo`` because the rendered world is in
``curation``, which ``zoo`` may not import.
"""
