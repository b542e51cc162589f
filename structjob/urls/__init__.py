"""Database URLs: which database one names, its options, and where its spools are."""
