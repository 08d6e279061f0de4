"""The simulated shop: what it sells (`catalogue`), its products (`assortment`), its customers' weeks (`simulation`), its files
(`write`).

May import: `files` and `logs`.
"""
