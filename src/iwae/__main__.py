"""`python -m iwae` is the command `iwae`."""

import sys

from iwae.cli import main

sys.exit(main())
