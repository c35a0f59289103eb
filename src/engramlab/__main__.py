"""``python -m engramlab`` is the command line; so is ``accelerate launch -m engramlab`` on several devices."""

from engramlab.cli import main

main()
