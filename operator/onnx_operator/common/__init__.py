"""What every process does alike, whatever it is for: logs, waits between tries, foreign text, long variables."""
