"""The command line: reads through the coordinator's HTTP API, and starts the processes of one machine."""
