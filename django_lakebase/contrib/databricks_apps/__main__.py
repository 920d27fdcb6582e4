"""Prints the folder of the project template, for ``startproject --template``."""

from pathlib import Path

if __name__ == "__main__":
    print(Path(__file__).with_name("project_template"))
