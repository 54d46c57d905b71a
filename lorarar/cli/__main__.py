"""``python -m lorarar.cli COMMAND …``, where the program ``lorarar`` is not installed."""

from lorarar.cli.quick import run

if __name__ == "__main__":
    run()
