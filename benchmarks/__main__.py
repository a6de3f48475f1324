"""`python -m benchmarks`: all of them. Options as for `benchmarks.steps`."""

import sys

from benchmarks.steps import main

sys.exit(main())
