"""`structjob run`: a program, its output, and the command."""
