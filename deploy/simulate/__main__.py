"""``python -m deploy.simulate``."""

from deploy.simulate.cli import main

if __name__ == "__main__":
    main()
