"""Product embeddings from shopping sequences, told as one reproducible report.

``shelfspace.open("reports/default")`` gives a finished run to be asked (`shelfspace.use.runs.Run`).
"""


def __getattr__(name: str):
    """`open`, imported when it is asked for: whoever imports one module of the package imports no other with it."""
    if name == "open":
        from importlib import import_module  # not by an import statement: a stage is up to date by those that it can reach

        return import_module("shelfspace.use.runs").open
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
