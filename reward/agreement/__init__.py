"""How often a score prefers what is really better.

``read`` opens a run, a published dataset or labelled pairs, ``truth`` says which of two texts is better and why,
``statistics`` counts, ``control`` shows a scorer the wrong image, ``table`` prints. ``python -m reward.agreement``.
"""
