"""How good a model is: places of targets, hit rate and MRR, intervals and tests, and what lies beyond accuracy. It knows models
as functions from histories to scores.

May import: the rooms before it, up to `vectors`.
"""
