"""`python -m tests.simulation`: see `run`."""

import sys

from tests.simulation.run import main

sys.exit(main())
