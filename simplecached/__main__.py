"""`python -m simplecached`."""

import sys

from simplecached.cli import main

sys.exit(main())
