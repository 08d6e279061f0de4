"""Product embeddings: the trainers (word2vec by `skipgram` or gensim, `starspace`), features and images of products, nearest
neighbours, and checks.

May import: the rooms before it: `files`, `logs`, `shop`, `sequences`.
"""
