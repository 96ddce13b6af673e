"""Curation: what is done to one source or one clip. Plain functions over plain rows, no Ray, no torch.

Importing the package loads nothing heavy; import the room you need::

    from dailies.curation import video, observe, world
"""
