"""Training: the loop, what it is made of, and runs that can be stopped anywhere and go on."""
