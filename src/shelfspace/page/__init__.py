"""The report and the comparison as HTML: figures (`charts`, `result_charts`), tables and notes (`exhibits`), chapters, the first
screen, the toys. A new figure is a function in `charts` or `result_charts`.

May import: the rooms before it; notebooks show with it, and no training depends on it.
"""
