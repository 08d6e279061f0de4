"""The tests. Their processes leave out what `shelfspace.cli.main` leaves out."""

import sys

sys.modules.setdefault("rfc3987_syntax", None)
