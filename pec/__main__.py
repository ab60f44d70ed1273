"""`python -m pec`, which is what scripts/demo calls: the same as the command `pec`."""

from pec.cli import main

if __name__ == "__main__":
    main()
