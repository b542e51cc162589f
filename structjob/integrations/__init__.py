"""One module for each program that structjob works with. None is imported by ``import
structjob``.
"""
