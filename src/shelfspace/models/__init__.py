"""From a history to scores of all products: user embeddings and their decay (`users`), the baselines, the networks (`dense`,
`tied`, `peers`) and the ranker (`retrieval`, `ranked`). `tied` answers in numpy by what `tied_training` learned in TensorFlow. A
new baseline is a function in `baselines`; a new kind of decay a case in `users.ages`.

May import: the rooms before it, up to `measure`.
"""
