"""The pipeline: which stages are up to date, each notebook through papermill, then the page; sweeps; what the DAG asks. A new
parameter needs no code: it is a line in a notebook's `parameters` cell.

May import: every other room.
"""
