"""Which words of a text are objects: lists, lemmatisers, taggers, and what counts as the same."""
