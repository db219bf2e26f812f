"""`python -m zhiyin.cli`, for where the entry point is out of reach, as under torchrun."""

from zhiyin.cli.entry import main

if __name__ == "__main__":
    main()
