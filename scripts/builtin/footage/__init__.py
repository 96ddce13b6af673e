"""Random footage at thumbnail size with known transitions: what the cut network is trained on.

A shot (``shots``) is a background under a moving camera (``grounds``, ``camera``) with things moving in front of it
(``things``), under changing light (``light``), with titles over it; all the things that fool cut detectors. Shots meet by
hard cuts, dissolves, fades through black or white, wipes of many forms and pushes (``transitions``), and the frames of both go
on moving in them. Everything is a function of continuous time, so footage can be sampled at any rate, evenly or not
(``sequences``). What it is made of comes from ``material``.
"""
