"""Text for people: numbers with nouns, characters that a stream can show, and the layout of a
line.
"""
