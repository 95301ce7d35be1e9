"""`python -m shoal_client` is `shoal-classify`."""

import sys

from shoal_client.command import main

sys.exit(main())
