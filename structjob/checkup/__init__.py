"""The checks of ``structjob doctor``: what is wrong with a database, and how to fix it."""
