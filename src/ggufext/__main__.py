"""``python -m ggufext``."""

from ggufext.cli import main

main()
