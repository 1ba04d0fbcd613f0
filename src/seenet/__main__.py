"""`python -m seenet` is `seenet`."""

from seenet.cli import main

main()
