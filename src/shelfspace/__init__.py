"""Product embeddings from shopping sequences, told as one reproducible report."""
