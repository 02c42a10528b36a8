"""`python -m webproxy`."""

import sys

from webproxy.cli import main

sys.exit(main())
