"""`python -m dsrecon`: the `dsrecon` command."""

from dsrecon.cli import app

if __name__ == "__main__":
    app()
