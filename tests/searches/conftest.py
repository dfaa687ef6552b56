"""Makes the search's fakes a module that the processes of workers can import too."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
