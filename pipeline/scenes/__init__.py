"""The built-in world: drawn scenes with exact facts, and small real models trained on them.

No weights can be downloaded on a fresh offline machine, so the project carries a world in which everything is real but
small. ``world`` says what is in a scene, ``raster`` makes the picture, ``grammar`` the words, ``prompts`` the rows of a
prompts table, ``build`` the models.
"""
