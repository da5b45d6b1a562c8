"""``python -m adanet_py``."""

from adanet_py.cli import main

if __name__ == "__main__":
    main()
