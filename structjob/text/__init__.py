"""Text as people read it: numbers with their nouns, what a stream can show, and how a line is
drawn.
"""
