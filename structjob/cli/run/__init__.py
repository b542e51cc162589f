"""`structjob run`: the program, its output, and the command."""
