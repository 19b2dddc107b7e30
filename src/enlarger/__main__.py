"""`python -m enlarger` is the command line."""

from enlarger.cli import main

if __name__ == "__main__":
    main()
