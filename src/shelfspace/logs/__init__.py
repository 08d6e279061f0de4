"""A shop's event log, read, cleaned or refused, on the engine of choice (DuckDB, Spark, BigQuery). A new public log is a layout
in `layouts`; a new engine goes into `engines`.

May import: `files`.
"""
