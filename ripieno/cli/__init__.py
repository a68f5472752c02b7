"""The command line: one verb a stage, each also a function of the package."""
