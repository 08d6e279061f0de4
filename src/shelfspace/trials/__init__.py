"""What is tried beside the recommender: variants of the embeddings and what each gains, searches, the ceiling of the simulated
shop, published splits.

May import: the rooms before it, up to `models`.
"""
