"""``python -m structjob``: the command line."""

from structjob.cli import main

if __name__ == "__main__":
    main()
