"""Has Numba load what it compiles with, which takes a third of a second: imported by the server of kernels alone, so that no kernel
does it anew."""

import numba

numba.njit(lambda: None)()
