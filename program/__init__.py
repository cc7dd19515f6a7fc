"""How a program runs: its command line, its settings, its run's folder, the machine."""
