"""Where things lie and what is whole: the notebooks with their parameters, run folders, files that are written at once or not at
all.

May import: nothing else of the package.
"""
